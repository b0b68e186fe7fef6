"""Exact attention that holds the scores of some queries at a time.

Shape legend: B batch, L query tokens, S key tokens, H heads, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Chunked:
    """An ``Attention``; scores and softmax are float32."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        factor = q_BLHD.shape[-1] ** -0.5 if scale is None else scale
        k_BHDS, v_BHSD = k_BSHD.permute(0, 2, 3, 1).float(), v_BSHD.transpose(1, 2).float()
        parts = []
        for q in torch.split(q_BLHD, self._chunk, dim=1):
            weights = (q.transpose(1, 2).float() * factor @ k_BHDS).softmax(-1)
            parts.append((weights @ v_BHSD).transpose(1, 2).to(q_BLHD.dtype))
        return torch.cat(parts, dim=1)
