"""LoRA files merged into the weights while reading: one tensor at a time, in float32.

Quantized weights arrive here dequantized and are re-quantized afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightx2v_core.api import Adapter, Change, DerivedSource, WeightSource, changed

if TYPE_CHECKING:
    from torch import Tensor, nn

Steps = Sequence[tuple[Adapter, Change]]


class Merge:
    """A ``LoraApplier`` that merges adapters into the weights."""

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return a source that merges ``adapters`` into ``base``; ``base`` itself if all strengths are 0."""
        steps: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in adapters:
            for change in adapter.changes:
                if adapter.strength:
                    steps.setdefault(change.target, []).append((adapter, change))
        return MergedSource(base, steps) if steps else base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Do nothing: the weights are merged."""


class MergedSource(DerivedSource):
    """A ``WeightSource`` that applies changes to another one; names, shapes and dtypes stay the same."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps]) -> None:
        super().__init__(base, steps)
        self._steps = steps

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read a tensor and apply its changes, in the dtype of ``base``."""
        tensor = super().read(name, device)
        if name not in self._steps:
            return tensor
        return changed(tensor, self._steps[name]).to(tensor.dtype)
