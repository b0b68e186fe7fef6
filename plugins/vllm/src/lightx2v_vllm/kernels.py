"""vLLM's functions as custom operators, which ``torch.compile`` keeps in its graph. Importing this imports vLLM.

Shape legend: L rows, I input features, O output features, S scales of a weight: O, or 1 for the whole tensor. Each
operator has a shape function, so the compiler does not trace into it: vLLM's own operators write into output arguments,
which breaks the graph where a shape function is missing.
"""

# no `from __future__ import annotations`: torch reads the annotations when an operator is declared
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from vllm import _custom_ops as ops  # type: ignore[import-not-found,import-untyped,unused-ignore]

from lightx2v_core.api import PluginError

#: vLLM functions called on CUDA, with the parameters passed by name
CALLED: Mapping[str, tuple[str, ...]] = {
    "scaled_fp8_quant": ("input", "use_per_token_if_dynamic"),
    "scaled_int8_quant": ("input", "symmetric"),
    "cutlass_scaled_mm": ("a", "b", "scale_a", "scale_b", "out_dtype", "bias"),
}
#: vLLM functions called on CPUs
CALLED_CPU: Mapping[str, tuple[str, ...]] = {
    "scaled_int8_quant": ("input", "symmetric"),
    "create_onednn_scaled_mm": ("weight", "weight_scales", "output_type", "dynamic_quant", "use_azp"),
    "onednn_scaled_mm": (
        "dnnl_handler", "x", "output", "input_scale", "input_zp", "input_zp_adj", "bias",
    ),
}  # fmt: skip


def check(called: Mapping[str, tuple[str, ...]], module: Any = ops) -> None:
    """Raise ``PluginError`` when the installed vLLM lacks a function or a parameter of one."""
    for name, wanted in called.items():
        function: Callable[..., Any] | None = getattr(module, name, None)
        if function is None:
            raise PluginError(f"the installed vLLM has no {name}; use a version from 0.30 to 0.33")
        missing = [parameter for parameter in wanted if parameter not in signature(function).parameters]
        if missing:
            raise PluginError(
                f"{name} of the installed vLLM has no parameter {', '.join(missing)}; use a version from 0.30 to 0.33"
            )


@torch.library.custom_op("lightx2v_vllm::fp8_linear", mutates_args=())
def fp8_linear(x_LI: Tensor, weight_OI: Tensor, scale_S: Tensor, bias_O: Tensor | None) -> Tensor:
    """Compute ``x W^T + b`` [L, O] in the dtype of ``x``, with fp8 activations and per-row scales."""
    codes, scale_L1 = ops.scaled_fp8_quant(x_LI.contiguous(), use_per_token_if_dynamic=True)
    out: Tensor = ops.cutlass_scaled_mm(
        codes, weight_OI.t(), scale_a=scale_L1, scale_b=scale_S[None], out_dtype=x_LI.dtype, bias=bias_O
    )
    return out


@torch.library.custom_op("lightx2v_vllm::int8_linear", mutates_args=())
def int8_linear(x_LI: Tensor, weight_OI: Tensor, scale_S: Tensor, bias_O: Tensor | None) -> Tensor:
    """Compute ``x W^T + b`` [L, O] in the dtype of ``x``, with int8 activations and per-row scales."""
    codes, scale_L1, _ = ops.scaled_int8_quant(x_LI.contiguous(), symmetric=True)
    out: Tensor = ops.cutlass_scaled_mm(
        codes, weight_OI.t(), scale_a=scale_L1, scale_b=scale_S[None], out_dtype=x_LI.dtype, bias=bias_O
    )
    return out


@fp8_linear.register_fake
@int8_linear.register_fake
def _shape(x_LI: Tensor, weight_OI: Tensor, _scale_S: Tensor, _bias_O: Tensor | None) -> Tensor:
    return x_LI.new_empty(x_LI.shape[0], weight_OI.shape[0])


class OneDnnProduct:
    """vLLM's int8 matmul for CPUs. It keeps a copy of the weight, packed once in the layout of the processor."""

    def __init__(self, weight_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> None:
        self._out = weight_OI.shape[0]
        self._dtype = dtype
        self._scale = scale_O.contiguous()  # the handler stores its address only
        self._handler = ops.create_onednn_scaled_mm(
            weight_OI.t(),
            self._scale,
            output_type=dtype,
            dynamic_quant=True,
            use_azp=False,
        )

    def __call__(self, x_LI: Tensor, bias_O: Tensor | None) -> Tensor:
        codes, scale_L1, _ = ops.scaled_int8_quant(x_LI.contiguous(), symmetric=True)
        out = x_LI.new_empty((x_LI.shape[0], self._out), dtype=self._dtype)
        ops.onednn_scaled_mm(self._handler, codes, out, scale_L1, None, None, bias_O)
        return out
