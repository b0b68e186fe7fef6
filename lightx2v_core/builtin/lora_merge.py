"""LoRA files merged into the weights as these are read: one tensor at a time, in float32.

Quantized weights come here decoded, and are quantized again behind this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightx2v_core.api import Adapter, Change, TensorInfo, WeightSource, changed

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
        """Nothing is attached."""


class MergedSource:
    """A ``WeightSource`` that reads as another one with changes applied; names, shapes and dtypes stay."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps]) -> None:
        self._base = base
        self._steps = steps

    def names(self) -> Sequence[str]:
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        return self._base.info(name)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        tensor = self._base.read(name, device)
        if name not in self._steps:
            return tensor
        return changed(tensor, self._steps[name]).to(tensor.dtype)

    def direct(self, name: str) -> bool:
        """What no adapter changes is read as the base reads it."""
        base: Any = self._base
        return name not in self._steps and hasattr(base, "direct") and base.direct(name)

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Into ``out``, of the stored shape and dtype, where ``direct`` says so."""
        base: Any = self._base
        base.read_into(name, out, cached=cached)

    def close(self) -> None:
        self._base.close()
