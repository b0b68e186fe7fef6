"""Exact attention that never keeps all scores: keys are processed in chunks with a running softmax.

The running softmax is that of Milakov and Gimelshein (https://arxiv.org/abs/1805.02867).
Shape legend: B batch, L query tokens, S key tokens, H heads, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


class StreamingAttention:
    """An ``Attention``. Scores, weights and sums are float32 for inputs of any dtype."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Compute ``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        factor = q_BLHD.shape[-1] ** -0.5 if scale is None else scale
        q_BHLD = q_BLHD.transpose(1, 2).float() * factor
        sums_BHLD = torch.zeros_like(q_BHLD)
        total_BHL1 = q_BHLD.new_zeros((*q_BHLD.shape[:-1], 1))
        largest_BHL1 = torch.full_like(total_BHL1, -torch.inf)
        chunks = (torch.split(x, self._chunk, dim=1) for x in (k_BSHD, v_BSHD))
        for k, v in zip(*chunks, strict=True):
            scores = q_BHLD @ k.permute(0, 2, 3, 1).float()
            now_BHL1 = torch.maximum(largest_BHL1, scores.amax(-1, keepdim=True))
            weights = (scores - now_BHL1).exp()
            # the sums so far were scaled with an older maximum
            shrink_BHL1 = (largest_BHL1 - now_BHL1).exp()
            total_BHL1 = total_BHL1 * shrink_BHL1 + weights.sum(-1, keepdim=True)
            sums_BHLD = sums_BHLD * shrink_BHL1 + weights @ v.transpose(1, 2).float()
            largest_BHL1 = now_BHL1
        return (sums_BHLD / total_BHL1).transpose(1, 2).to(q_BLHD.dtype)
