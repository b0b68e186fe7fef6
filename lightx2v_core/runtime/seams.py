"""Decoded frames of a video that is made in segments: what a segment repeats, and what is too much, is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def between(chunks: Iterator[Tensor], skip: int, limit: int | None) -> Iterator[Tensor]:
    """The frames of chunks [3, n, H, W] after the first ``skip``, and ``limit`` of them at most (None: all). No chunk
    is asked for that is not needed for these."""
    while limit is None or limit > 0:
        chunk = next(chunks, None)
        if chunk is None:
            return
        skip, chunk = max(skip - chunk.shape[1], 0), chunk[:, skip:][:, :limit]
        if chunk.shape[1]:
            limit = None if limit is None else limit - chunk.shape[1]
            yield chunk
