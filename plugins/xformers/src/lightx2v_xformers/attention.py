"""xformers' attention as a backend. Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from lightx2v_core.api import Attention, BuildContext, PluginError
from lightx2v_xformers.operators import operator, operator_reasons
from lightx2v_xformers.plugin import XformersOptions


def build(options: XformersOptions, ctx: BuildContext) -> Attention:
    """The backend with the chosen operator. ``PluginError`` when that one does not run here."""
    chosen = None
    if options.op != "auto":
        chosen = operator(options.op)
        if why := operator_reasons(chosen, ctx):
            raise PluginError(
                f"xformers' operator {options.op!r} cannot be used: {'; '.join(why)}; choose another 'op', or 'auto'"
            )
    return XformersAttention(import_module("xformers.ops").memory_efficient_attention, chosen)


class XformersAttention:
    """``memory_efficient_attention`` (``Attention``): it has our layout, so nothing is moved."""

    def __init__(self, function: Callable[..., Tensor], op: Any | None) -> None:
        self._function = function
        #: the forward operator, and none for gradients; ``None`` leaves the choice to xformers
        self._op = None if op is None else (op, None)

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        return self._function(q_BLHD, k_BSHD, v_BSHD, scale=scale, op=self._op)
