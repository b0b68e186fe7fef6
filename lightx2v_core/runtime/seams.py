"""Joining the decoded frames of segments: repeated frames, and frames beyond the end of the video, are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def between(chunks: Iterator[Tensor], skip: int, limit: int | None) -> Iterator[Tensor]:
    """Yield the frames of chunks [3, n, H, W] after the first ``skip``, at most ``limit`` of them (None: all). Chunks
    after these are not decoded."""
    while limit is None or limit > 0:
        chunk = next(chunks, None)
        if chunk is None:
            return
        skip, chunk = max(skip - chunk.shape[1], 0), chunk[:, skip:][:, :limit]
        if chunk.shape[1]:
            limit = None if limit is None else limit - chunk.shape[1]
            yield chunk
