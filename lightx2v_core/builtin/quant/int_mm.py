"""int8 with ``torch._int_mm``: activations get one scale per token on every call, the product is exact in int32.

Shape legend: L rows, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_core.api import LayerFormat, StoredLinear, quantize_tokens

#: int8 [L, I] and int8 [O, I] -> their product [L, O] in int32
Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: minimum number of rows of the CUDA kernels
_ROWS = 32
#: inputs whose int8 products can be summed exactly in float32: 1024 * 128 * 128 is 2 ** 24
_EXACT = 1024


class Int8Linear(StoredLinear):
    """``(quantized x) (quantized W)^T * scales + b`` on the int8 units of the device."""

    def __init__(self, plain: nn.Linear, layer: LayerFormat, *, product: Product) -> None:
        super().__init__(plain, layer)
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        x_LI, scale_L1 = quantize_tokens(x.reshape(-1, self.in_features), torch.int8)
        rows = x_LI.shape[0]
        if x.is_cuda and rows < _ROWS:
            x_LI = F.pad(x_LI, (0, 0, 0, _ROWS - rows))
        product_LO = self._product(x_LI, self.weight)[:rows]
        out = product_LO.float() * scale_L1 * self.scales()
        if self.bias is not None:
            out = out + self.bias.float()
        return out.to(self.dtype).view(*x.shape[:-1], self.out_features)


def linear_for(device: str) -> Callable[[nn.Linear, LayerFormat], nn.Module]:
    """Choose the layer class for a device type.

    On a CPU with a wrong int8 product (where oneDNN adds two products in 16 bits) the layers multiply in float32,
    with the same result.
    """
    return partial(Int8Linear, product=int8_product if device != "cpu" or _cpu_is_right() else float_product)


def int8_product(x_LI: Tensor, weight_OI: Tensor) -> Tensor:
    """Multiply int8 [L, I] with int8 [O, I] transposed, to int32 [L, O]."""
    return torch._int_mm(x_LI, weight_OI.t())


def float_product(x_LI: Tensor, weight_OI: Tensor) -> Tensor:
    """Compute ``int8_product`` in float32, in parts of so few inputs that nothing is rounded."""
    total_LO = x_LI.new_zeros(x_LI.shape[0], weight_OI.shape[0], dtype=torch.int32)
    for x, weight in zip(
        torch.split(x_LI, _EXACT, dim=1), torch.split(weight_OI, _EXACT, dim=1), strict=True
    ):
        total_LO += F.linear(x.float(), weight.float()).to(torch.int32)
    return total_LO


@cache
def _cpu_is_right() -> bool:
    """Check the int8 product of this CPU with the largest values; takes about 0.1 ms, once per process."""
    largest = torch.full((1, 128), 127, dtype=torch.int8)
    signs = torch.tensor([[1], [-1]], dtype=torch.int8)
    product = int8_product(largest * signs, (largest * signs).repeat(8, 1))
    expected = 128 * 127**2 * (signs.int() @ signs.int().repeat(8, 1).t())
    return torch.equal(product, expected)
