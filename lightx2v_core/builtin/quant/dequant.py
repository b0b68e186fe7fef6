"""The quantizer for any device: weights stay in their stored format and are dequantized when their layer is called.

Exact: the result is that of the plain layer with the dequantized weight, rounded to the compute dtype.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lightx2v_core.api import StoredLinear, dequantize_weight


class DecodedLinear(StoredLinear):
    """``x W^T + b`` with ``W`` dequantized on each call."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        stored: dict[str, Tensor] = {"weight": self.weight}
        if self.weight_scale is not None:
            stored["weight_scale"] = self.weight_scale
        return F.linear(x, dequantize_weight(stored, self.format).to(self.dtype), self.bias)
