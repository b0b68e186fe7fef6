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

#: B, L, S, H: no multiples of the tiles that kernels work in
_SHAPE = (2, 33, 70, 2)
#: how large the entries of queries and keys are in the second part: their scores are beyond what exp() holds
_LARGE = 30.0
#: largest error allowed, of the norm of the difference in that of the exact result; kernels that round to 8 bits pass
_ALLOWED: Mapping[str, float] = {"float32": 0.01, "float16": 0.08, "bfloat16": 0.08}


def attention_proof(claim: Claim) -> str | None:
    """What is wrong with an attention kernel for one head dim: with ordinary scores, with a given scale, with scores
    so large that only a softmax of differences holds them."""
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
        wanted = exact(*given, head_dim**-0.5 if scale is None else scale)
        if got.shape != wanted.shape or got.dtype != q.dtype:
            return f"attention{what} gives {list(got.shape)} in {got.dtype}, not {list(wanted.shape)} in {q.dtype}"
        error = float(((got.double().cpu() - wanted).norm() / wanted.norm()).nan_to_num(nan=math.inf))
        if error > _ALLOWED[claim.dtype]:
            return (
                f"attention{what} in {claim.dtype} of {_SHAPE[1]} queries and {_SHAPE[2]} keys of head dim {head_dim} "
                f"is off by {error:.1%} of the exact result, {_ALLOWED[claim.dtype]:.0%} is allowed"
            )
    return None


def exact(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, scale: float) -> Tensor:
    """Attention in float64 on the CPU, [B, L, H, D]."""
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
