"""A quantizer: int8 weights that are never decoded as a whole.

A layer multiplies with the codes themselves, some rows at a time, and scales what comes out: what it needs beside the
stored weight is a piece of it in the compute dtype. Codes are whole numbers to 127, which every float dtype holds.
Shape legend: O output features, I input features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightx2v_core.api import LayerFormat, StoredLinear, dequantize_weight, quantize_weight
from torch import Tensor, nn
from torch.nn import functional as F

#: a symmetric int8 code for each value, a float32 scale for each output channel
FORMAT = "int8-channel"


class RowCodes:
    """A ``Quantizer``. For a format of your own, these are the two functions with its maths, and the layer."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        """The layer that takes the place of ``plain``, on the meta device."""
        return RowLinear(plain, layer, self._rows)

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        """Codes [O, I] and scales [O, 1]. ``ValueError`` for another format, and for values that are not finite."""
        if format != FORMAT:
            raise ValueError(f"stores weights as {FORMAT}, not as {format}")
        return quantize_weight(weight, format)

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """The float32 weight [O, I] that codes and scales stand for."""
        return dequantize_weight(stored, layer.format)


class RowLinear(StoredLinear):
    """``(x codes^T) * scales + b``. Its tensors are called as in the files: ``weight``, ``weight_scale``, ``bias``."""

    def __init__(self, plain: nn.Linear, layer: LayerFormat, rows: int) -> None:
        super().__init__(plain, layer)
        self._rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the dtype of the plain layer."""
        pieces = torch.split(self.weight, self._rows)
        product = torch.cat([F.linear(x, codes.to(self.dtype)) for codes in pieces], dim=-1)
        out = (product.float() * self.scales()).to(self.dtype)
        return out if self.bias is None else out + self.bias
