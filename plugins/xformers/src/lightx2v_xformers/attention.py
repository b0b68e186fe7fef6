"""Attention backend on xformers. Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from lightx2v_core.api import Attention, BuildContext, PluginError
from lightx2v_xformers.operators import operator, operator_reasons
from lightx2v_xformers.plugin import XformersOptions


def build(options: XformersOptions, ctx: BuildContext) -> Attention:
    """Build the backend with the configured operator. Raises ``PluginError`` when that operator is unusable."""
    chosen = None
    if options.op != "auto":
        chosen = operator(options.op)
        if why := operator_reasons(chosen, ctx):
            raise PluginError(
                f"xformers operator {options.op!r} is unusable: {'; '.join(why)}; choose another 'op', or 'auto'"
            )
    return XformersAttention(import_module("xformers.ops").memory_efficient_attention, chosen)


class XformersAttention:
    """An ``Attention`` on ``memory_efficient_attention``, which has the same layout: tensors are not transposed."""

    def __init__(self, function: Callable[..., Tensor], op: Any | None) -> None:
        self._function = function
        #: forward operator and no backward one; ``None``: xformers chooses
        self._op = None if op is None else (op, None)

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Compute ``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``."""
        return self._function(q_BLHD, k_BSHD, v_BSHD, scale=scale, op=self._op)
