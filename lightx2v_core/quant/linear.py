"""What quantizers share: parameters as the file has them, on the meta device, and the maths of the codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lightx2v_core.quant.arithmetic import decode_weight, encode_weight
from lightx2v_core.spec.tensors import LayerFormat


class StoredLinear(nn.Module):
    """The stored tensors of a quantized linear under their official names.

    ``weight`` keeps its stored dtype, ``weight_scale`` is float32 in its stored shape, and is absent for formats
    without a scale; ``bias`` has the dtype of the computation. What the layer computes, its ``kernel`` says.
    """

    weight_scale: Tensor | None
    bias: nn.Parameter | None

    def __init__(self, plain: nn.Linear, layer: LayerFormat) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.dtype = plain.weight.dtype
        self.format = layer.format
        info = layer.weight
        dtype = getattr(torch, info.stored_dtype)
        with torch.device("meta"):
            self.weight = nn.Parameter(torch.empty(info.stored_shape, dtype=dtype), requires_grad=False)
            scale = layer.tensors.get("weight_scale")
            self.register_buffer(
                "weight_scale", None if scale is None else torch.empty(scale.shape, dtype=torch.float32)
            )
            bias = None
            if plain.bias is not None:
                bias = nn.Parameter(
                    torch.empty(plain.bias.shape, dtype=plain.bias.dtype), requires_grad=False
                )
            self.bias = bias

    def scales(self) -> Tensor:
        """One float32 scale for each output channel, [O], whatever the file has."""
        if self.weight_scale is None:
            return self.weight.new_ones(self.out_features, dtype=torch.float32)
        return self.weight_scale.reshape(-1).expand(self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.format}"


class CodeQuantizer:
    """``Quantizer`` of the formats that ``encode_weight`` and ``decode_weight`` know, with one class of linears."""

    def __init__(self, linear: Callable[[nn.Linear, LayerFormat], nn.Module]) -> None:
        self._linear = linear

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        return self._linear(plain, layer)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        return encode_weight(weight, format)

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        return decode_weight(stored, layer.format)
