"""The proof of attention kernels, against float64 arithmetic.

Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.runtime.proof.claim import Claim
from lightx2v_core.spec.protocols import Attention
from lightx2v_core.spec.specs import AttentionSpec

#: B, L, S, H: not multiples of the tile sizes of kernels
_SHAPE = (2, 33, 70, 2)
#: magnitude of queries and keys in the third test: exp() of their scores overflows
_LARGE = 30.0
#: largest norm of the difference, relative to that of the exact result; kernels that round to 8 bits pass
_ALLOWED: Mapping[str, float] = {"float32": 0.01, "float16": 0.08, "bfloat16": 0.08}


def attention_proof(claim: Claim) -> str | None:
    """Test an attention kernel for one head dim: with ordinary scores, with an explicit scale, and with scores so large
    that the softmax must subtract the maximum. Returns the fault, or ``None``."""
    spec: AttentionSpec[Any] = claim.spec  # type: ignore[assignment]
    attention: Attention = spec.build(claim.config, claim.ctx)
    head_dim = claim.use.head_dim
    q, k, v = _inputs(head_dim, getattr(torch, claim.dtype))
    signs = (torch.sign(k.float()) + (k == 0)).to(k.dtype)
    chosen = torch.arange(_SHAPE[1]) * 2 % _SHAPE[2]
    for what, scale, given in (
        ("", None, (q, k, v)),
        (" with a scale of 0.3", 0.3, (q, k, v)),
        (" with large scores", None, (signs[:, chosen] * _LARGE, signs, v)),
    ):
        on_device = [x.to(claim.device) for x in given]
        with torch.inference_mode():
            got = attention(*on_device, scale=scale)
        expected = exact(*given, head_dim**-0.5 if scale is None else scale)
        if got.shape != expected.shape or got.dtype != q.dtype:
            return f"attention{what} returns {list(got.shape)} in {got.dtype}, not {list(expected.shape)} in {q.dtype}"
        error = float(((got.double().cpu() - expected).norm() / expected.norm()).nan_to_num(nan=math.inf))
        if error > _ALLOWED[claim.dtype]:
            return (
                f"attention{what} in {claim.dtype} of {_SHAPE[1]} queries and {_SHAPE[2]} keys of head dim {head_dim} "
                f"differs from softmax(q k^T * scale) v by {error:.1%}, tolerance {_ALLOWED[claim.dtype]:.0%}"
            )
    return None


def exact(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, scale: float) -> Tensor:
    """Compute attention in float64 on the CPU, [B, L, H, D]."""
    q, k, v = (x.double() for x in (q_BLHD, k_BSHD, v_BSHD))
    scores = torch.einsum("blhd,bshd->bhls", q, k) * scale
    return torch.einsum("bhls,bshd->blhd", scores.softmax(dim=-1), v)


def _inputs(head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    batch, queries, keys, heads = _SHAPE
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, length, heads, head_dim, generator=generator).to(dtype)
        for length in (queries, keys, keys)
    ]
