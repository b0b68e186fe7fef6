"""A quantizer for int8 weights that are never dequantized as a whole.

A layer multiplies with the codes themselves, some rows at a time, and scales the product. Besides the stored weight it
needs only these rows in the compute dtype. Codes are integers up to 127, which are exact in every float dtype.
Shape legend: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightx2v_core.api import LayerFormat, StoredLinear, dequantize_weight, quantize_weight
from torch import Tensor, nn
from torch.nn import functional as F

#: one symmetric int8 code per value, one float32 scale per output channel
FORMAT = "int8-channel"


class RowCodes:
    """A ``Quantizer``. A format of your own needs the layer, and its arithmetic in the other two methods."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        """Build the layer that replaces ``plain``, on the meta device."""
        return RowLinear(plain, layer, self._rows)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        """Quantize a weight to codes [O, I] and scales [O, 1].

        Raises ``ValueError`` for other formats and for values that are not finite.
        """
        if format != FORMAT:
            raise ValueError(f"unsupported format {format}; this quantizer writes {FORMAT}")
        return quantize_weight(weight, format)

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """Dequantize codes and scales to a float32 weight [O, I]."""
        return dequantize_weight(stored, layer.format)


class RowLinear(StoredLinear):
    """``(x codes^T) * scales + b``, with the tensor names of the files: ``weight``, ``weight_scale``, ``bias``."""

    def __init__(self, plain: nn.Linear, layer: LayerFormat, rows: int) -> None:
        super().__init__(plain, layer)
        self._rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        pieces = torch.split(self.weight, self._rows)
        product = torch.cat([F.linear(x, codes.to(self.dtype)) for codes in pieces], dim=-1)
        out = (product.float() * self.scales()).to(self.dtype)
        return out if self.bias is None else out + self.bias
