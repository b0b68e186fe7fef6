"""Linears whose weights stay packed in memory, decoded when they are called."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_core.api import LayerFormat, StoredLinear
from lightx2v_gguf.blocks import decode, encode


class PackedLinear(StoredLinear):
    """``x W^T + b`` with ``W`` [O, I] decoded for the call; ``weight`` is uint8 [blocks, bytes of a block]."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the dtype of the plain layer."""
        weight = decode(self.weight, self.format, self.dtype)
        return F.linear(x, weight.view(self.out_features, self.in_features), self.bias)


class PackedQuantizer:
    """``Quantizer`` of the block formats."""

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        return PackedLinear(plain, layer)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        return {"weight": encode(weight, format)}

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """The float32 weight; ``stored`` has one tensor, the weight or, of what is no layer's weight, the tensor."""
        (packed,) = (tensor for suffix, tensor in stored.items() if suffix in ("weight", ""))
        return decode(packed, layer.format).view(layer.shape)
