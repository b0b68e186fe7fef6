"""Attention backends on the kernel packages. All have the same layout, so tensors are not transposed.

Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from lightx2v_core.api import Attention


def flash2() -> Attention:
    """Build FlashAttention 2 on ``flash_attn_func`` of flash_attn."""
    return _Flash(import_module("flash_attn").flash_attn_func)


def flash3() -> Attention:
    """Build FlashAttention 3 on ``flash_attn_func`` of flash_attn_interface."""
    return _Flash(import_module("flash_attn_interface").flash_attn_func)


def sage2() -> Attention:
    """Build SageAttention 2 on ``sageattn``, which selects the kernel for the device."""
    return _Sage(import_module("sageattention").sageattn)


class _Flash:
    """An ``Attention`` on FlashAttention.

    Pre-release builds of version 3 also return the log-sum-exp, which is dropped.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Compute ``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        out = self._function(q_BLHD, k_BSHD, v_BSHD, softmax_scale=scale, causal=False)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result


class _Sage:
    """An ``Attention`` on SageAttention, about as accurate as 8-bit arithmetic."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Compute ``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``, with rounded intermediates."""
        return self._function(q_BLHD, k_BSHD, v_BSHD, tensor_layout="NHD", is_causal=False, sm_scale=scale)
