"""torchao's products as operators that ``torch.compile`` keeps in its graph. Importing this imports torchao.

Shape legend: L rows, I input features, O output features. A weight tensor of torchao's is made of what is stored for
each call: a view with a class, which costs no memory. So layers keep the names of their file, and offloaders and LoRA
appliers find plain tensors.
"""

# annotations are read by torch when an operator is declared, so they stay what they are
import logging
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightx2v_core.api import PluginError

# it warns of each of its libraries that is for another device than there is
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
    raise PluginError(f"the installed torchao is none that is known here (0.18 is): {exc}") from exc
finally:
    _LOGGER.setLevel(_LEVEL)

#: parameters of the tensors that are used
_USED = {
    int8_tensor.Int8Tensor: ("qdata", "scale", "block_size", "dtype", "act_quant_kwargs"),
    float8_tensor.Float8Tensor: ("qdata", "scale", "block_size", "mm_config", "act_quant_kwargs", "dtype"),
}
_INT8_ROWS = int8_tensor.QuantizeTensorToInt8Kwargs(granularity=PerRow())
_FP8_CONFIG = inference.Float8MMConfig(use_fast_accum=True)
#: without a bound a row of zeros is divided by zero
_FP8_ROWS = float8_tensor.QuantizeTensorToFloat8Kwargs(
    granularity=PerRow(), mm_config=_FP8_CONFIG, hp_value_lb=1e-7
)


def check() -> None:
    """``PluginError`` when the tensors of the installed torchao are made of other things."""
    for tensor, wanted in _USED.items():
        known = signature(tensor.__new__).parameters
        if missing := [name for name in wanted if name not in known]:
            raise PluginError(
                f"{tensor.__name__} of the installed torchao takes no {', '.join(missing)}; 0.18 does"
            )


def int8_weight(codes_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Any:
    """torchao's weight of int8 codes and float32 scales, for activations with a scale for each row."""
    block = [1, codes_OI.shape[1]]
    return int8_tensor.Int8Tensor(codes_OI, scale_O[:, None], block, dtype, act_quant_kwargs=_INT8_ROWS)


def fp8_weight(codes_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Any:
    """The same of fp8 codes."""
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
    """``x W^T + b`` [L, O] in the dtype of ``x``."""
    return F.linear(x_LI, int8_weight(weight_OI, scale_O, x_LI.dtype), bias_O)


@torch.library.custom_op("lightx2v_torchao::fp8_linear", mutates_args=())
def fp8_linear(x_LI: Tensor, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """``x W^T + b`` [L, O] in the dtype of ``x``. torchao computes the scales of activations in their dtype, of which
    float16 cannot hold the small ones."""
    dtype = torch.float32 if x_LI.dtype == torch.float16 else x_LI.dtype
    bias = None if bias_O is None else bias_O.to(dtype)
    return F.linear(x_LI.to(dtype), fp8_weight(weight_OI, scale_O, dtype), bias).to(x_LI.dtype)


@int8_linear.register_fake
@fp8_linear.register_fake
def _shape(x_LI: Tensor, weight_OI: Tensor, _scale_O: Tensor, _bias_O: Tensor | None) -> Tensor:
    return x_LI.new_empty(x_LI.shape[0], weight_OI.shape[0])
