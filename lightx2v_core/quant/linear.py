"""Quantized linear layers whose parameters have the dtypes and shapes of the file, on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lightx2v_core.quant.arithmetic import dequantize_weight, quantize_weight
from lightx2v_core.spec.tensors import LayerFormat


class StoredLinear(nn.Module):
    """A module with the stored tensors of a quantized linear under their official names.

    ``weight`` keeps its stored dtype; ``weight_scale`` is float32 in its stored shape, and ``None`` for formats without
    a scale; ``bias`` has the compute dtype. Subclasses implement ``forward``.
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
        """Return one float32 scale for each output channel, [O]; ones if the format has no scale."""
        if self.weight_scale is None:
            return self.weight.new_ones(self.out_features, dtype=torch.float32)
        return self.weight_scale.reshape(-1).expand(self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.format}"


class CodeQuantizer:
    """A ``Quantizer`` for the formats of ``quantize_weight``, with one class of linears."""

    def __init__(self, linear: Callable[[nn.Linear, LayerFormat], nn.Module]) -> None:
        self._linear = linear

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        return self._linear(plain, layer)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        return quantize_weight(weight, format)

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        return dequantize_weight(stored, layer.format)
