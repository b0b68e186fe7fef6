"""Quantized linear layers on vLLM's kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightx2v_core.api import CodeQuantizer, StoredLinear
from lightx2v_vllm import kernels

if TYPE_CHECKING:
    from lightx2v_core.api import Quantizer


class Fp8VllmLinear(StoredLinear):
    """Linear layer with fp8 weights on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        out: Tensor = kernels.fp8_linear(rows, self.weight, own_scales(self), self.bias)
        return out.view(*x.shape[:-1], self.out_features)


class Int8VllmLinear(StoredLinear):
    """Linear layer with int8 weights on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        out: Tensor = kernels.int8_linear(rows, self.weight, own_scales(self), self.bias)
        return out.view(*x.shape[:-1], self.out_features)


class Int8VllmCpuLinear(StoredLinear):
    """Linear layer with int8 weights on a CPU."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._product: kernels.OneDnnProduct | None = None
        self._packed: tuple[int, int, int] | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        scales = self.scales()
        # an offloader or a change of LoRA may have replaced the weights
        now = (self.weight.data_ptr(), self.weight._version, scales.data_ptr())
        if self._product is None or self._packed != now:
            self._product = kernels.OneDnnProduct(self.weight, scales, self.dtype)
            self._packed = now
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        return self._product(rows, self.bias).view(*x.shape[:-1], self.out_features)


def own_scales(layer: StoredLinear) -> Tensor:
    """Return the stored scales of a layer, [O] or [1].

    The CUDA kernels accept both, but require contiguous scales, so not an expanded view of one value.
    """
    scale = layer.weight_scale
    return layer.scales().contiguous() if scale is None else scale.reshape(-1)


def fp8_quantizer() -> Quantizer:
    """Build the fp8 quantizer for CUDA. Raises ``PluginError`` when the installed vLLM is not compatible."""
    kernels.check(kernels.CALLED)
    return CodeQuantizer(Fp8VllmLinear)


def int8_quantizer(device: str) -> Quantizer:
    """Build the int8 quantizer for CUDA or a CPU. Raises ``PluginError`` when the installed vLLM is not compatible."""
    if device == "cpu":
        kernels.check(kernels.CALLED_CPU)
        return CodeQuantizer(Int8VllmCpuLinear)
    kernels.check(kernels.CALLED)
    return CodeQuantizer(Int8VllmLinear)
