"""LoRA files merged into the weights as these are read: one tensor at a time, in float32.

Quantized weights come here decoded, and are quantized again behind this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightx2v_core.api import Adapter, Change, DerivedSource, WeightSource, changed

if TYPE_CHECKING:
    from torch import Tensor, nn

Steps = Sequence[tuple[Adapter, Change]]


class Merge:
    """Adapters become part of the weights (``LoraApplier``)."""

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        steps: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in adapters:
            for change in adapter.changes:
                if adapter.strength:
                    steps.setdefault(change.target, []).append((adapter, change))
        return MergedSource(base, steps) if steps else base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Attach nothing."""


class MergedSource(DerivedSource):
    """A ``WeightSource`` that reads as another one with changes applied; names, shapes and dtypes stay."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps]) -> None:
        super().__init__(base, steps)
        self._steps = steps

    def read(self, name: str, device: str = "cpu") -> Tensor:
        tensor = super().read(name, device)
        if name not in self._steps:
            return tensor
        return changed(tensor, self._steps[name]).to(tensor.dtype)
