"""Linear layers with packed weights, decoded in every call."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_core.api import LayerFormat, StoredLinear
from lightx2v_gguf.blocks import decode, encode


class PackedLinear(StoredLinear):
    """``x W^T + b`` with ``W`` [O, I] decoded for the call; ``weight`` is uint8 [blocks, bytes per block]."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        weight = decode(self.weight, self.format, self.dtype)
        return F.linear(x, weight.view(self.out_features, self.in_features), self.bias)


class PackedQuantizer:
    """A ``Quantizer`` for the block formats."""

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        return PackedLinear(plain, layer)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        return {"weight": encode(weight, format)}

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """Decode the float32 weight from the one tensor of ``stored``: a layer's weight, or a tensor of no layer."""
        (packed,) = (tensor for suffix, tensor in stored.items() if suffix in ("weight", ""))
        return decode(packed, layer.format).view(layer.shape)
