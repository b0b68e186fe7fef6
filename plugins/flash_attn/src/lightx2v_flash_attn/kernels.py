"""The kernel packages as backends. Each has our layout, so nothing is moved.

Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from lightx2v_core.api import Attention


def flash2() -> Attention:
    """``flash_attn_func`` of flash_attn 2."""
    return _Flash(import_module("flash_attn").flash_attn_func)


def flash3() -> Attention:
    """``flash_attn_func`` of flash_attn_interface, which is FlashAttention 3."""
    return _Flash(import_module("flash_attn_interface").flash_attn_func)


def sage2() -> Attention:
    """``sageattn`` of sageattention 2, which chooses the kernel of the device."""
    return _Sage(import_module("sageattention").sageattn)


class _Flash:
    """FlashAttention (``Attention``). Builds of version 3 from before its release return the logarithms of the sums
    beside the result; these are left out."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        out = self._function(q_BLHD, k_BSHD, v_BSHD, softmax_scale=scale, causal=False)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result


class _Sage:
    """SageAttention (``Attention``): about as exact as 8 bits are."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``, rounded on the way."""
        return self._function(q_BLHD, k_BSHD, v_BSHD, tensor_layout="NHD", is_causal=False, sm_scale=scale)
