"""Quantized linear layers on torchao's matmuls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lightx2v_core.api import CodeQuantizer, StoredLinear
from lightx2v_torchao import kernels

if TYPE_CHECKING:
    from lightx2v_core.api import Quantizer


class Int8TorchaoLinear(StoredLinear):
    """Linear layer with int8 weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        out: Tensor = kernels.int8_linear(rows, self.weight, self.scales(), self.bias)
        return out.view(*x.shape[:-1], self.out_features)


class Fp8TorchaoLinear(StoredLinear):
    """Linear layer with fp8 weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        out: Tensor = kernels.fp8_linear(rows, self.weight, self.scales(), self.bias)
        return out.view(*x.shape[:-1], self.out_features)


def int8_quantizer() -> Quantizer:
    """Build the int8 quantizer. Raises ``PluginError`` when the installed torchao is not compatible."""
    kernels.check()
    return CodeQuantizer(Int8TorchaoLinear)


def fp8_quantizer() -> Quantizer:
    """Build the fp8 quantizer. Raises ``PluginError`` when the installed torchao is not compatible."""
    kernels.check()
    return CodeQuantizer(Fp8TorchaoLinear)
