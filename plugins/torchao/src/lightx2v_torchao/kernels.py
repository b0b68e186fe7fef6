"""torchao's matmuls as custom operators, which ``torch.compile`` keeps in its graph. Importing this imports torchao.

Shape legend: L rows, I input features, O output features. Each call wraps the stored codes and scales in a tensor
subclass of torchao, without a copy. Layers keep the tensor names of their file, and offloaders and LoRA appliers see
plain tensors.
"""

# no `from __future__ import annotations`: torch reads the annotations when an operator is declared
import logging
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightx2v_core.api import PluginError

# torchao warns about each of its libraries that is built for another device
_LOGGER = logging.getLogger("torchao")
_LEVEL = _LOGGER.level
_LOGGER.setLevel(logging.ERROR)
try:
    from torchao.float8 import inference
    from torchao.quantization import PerRow
    from torchao.quantization.quantize_.workflows.float8 import (
        float8_tensor,
    )
    from torchao.quantization.quantize_.workflows.int8 import (
        int8_tensor,
    )
except ImportError as exc:
    raise PluginError(f"the installed torchao is not compatible ({exc}); use 0.18") from exc
finally:
    _LOGGER.setLevel(_LEVEL)

#: tensor subclasses and the parameters passed to them
_USED = {
    int8_tensor.Int8Tensor: ("qdata", "scale", "block_size", "dtype", "act_quant_kwargs"),
    float8_tensor.Float8Tensor: ("qdata", "scale", "block_size", "mm_config", "act_quant_kwargs", "dtype"),
}
_INT8_ROWS = int8_tensor.QuantizeTensorToInt8Kwargs(granularity=PerRow())
_FP8_CONFIG = inference.Float8MMConfig(use_fast_accum=True)
#: without a lower bound a row of zeros is divided by zero
_FP8_ROWS = float8_tensor.QuantizeTensorToFloat8Kwargs(
    granularity=PerRow(), mm_config=_FP8_CONFIG, hp_value_lb=1e-7
)


def check() -> None:
    """Raise ``PluginError`` when the tensor subclasses of the installed torchao have other parameters."""
    for tensor, wanted in _USED.items():
        known = signature(tensor.__new__).parameters
        if missing := [name for name in wanted if name not in known]:
            raise PluginError(
                f"{tensor.__name__} of the installed torchao has no parameter {', '.join(missing)}; use 0.18"
            )


def int8_weight(codes_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Any:
    """Wrap the int8 codes and float32 scales in torchao's tensor, for activations with per-row scales."""
    block = [1, codes_OI.shape[1]]
    return int8_tensor.Int8Tensor(codes_OI, scale_O[:, None], block, dtype, act_quant_kwargs=_INT8_ROWS)


def fp8_weight(codes_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Any:
    """Wrap the fp8 codes and float32 scales in torchao's tensor, for activations with per-row scales."""
    return float8_tensor.Float8Tensor(
        codes_OI,
        scale_O.contiguous()[:, None],
        block_size=[1, codes_OI.shape[1]],
        mm_config=_FP8_CONFIG,
        act_quant_kwargs=_FP8_ROWS,
        dtype=dtype,
    )


@torch.library.custom_op("lightx2v_torchao::int8_linear", mutates_args=())
def int8_linear(x_LI: Tensor, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """Compute ``x W^T + b`` [L, O] in the dtype of ``x``."""
    return F.linear(x_LI, int8_weight(weight_OI, scale_O, x_LI.dtype), bias_O)


@torch.library.custom_op("lightx2v_torchao::fp8_linear", mutates_args=())
def fp8_linear(x_LI: Tensor, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """Compute ``x W^T + b`` [L, O] in the dtype of ``x``.

    Float16 activations are cast to float32: torchao computes their scales in their dtype, and small scales underflow in
    float16.
    """
    dtype = torch.float32 if x_LI.dtype == torch.float16 else x_LI.dtype
    bias = None if bias_O is None else bias_O.to(dtype)
    return F.linear(x_LI.to(dtype), fp8_weight(weight_OI, scale_O, dtype), bias).to(x_LI.dtype)


@int8_linear.register_fake
@fp8_linear.register_fake
def _shape(x_LI: Tensor, weight_OI: Tensor, _scale_O: Tensor, _bias_O: Tensor | None) -> Tensor:
    return x_LI.new_empty(x_LI.shape[0], weight_OI.shape[0])
