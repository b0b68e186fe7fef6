"""The offloader that does not offload: everything is loaded onto the device once and stays there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from lightx2v_core.api import ModuleWeights

if TYPE_CHECKING:
    from torch import nn


class Resident:
    """An offloader that fills each component on ``device`` when it is placed."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._weights: dict[str, ModuleWeights] = {}

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        self._weights[component] = weights
        weights.fill("", self.device)

    def refresh(self, component: str, names: Collection[str]) -> None:
        self._weights[component].refill(names, self.device)

    def active(self, component: str) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, component: str) -> None:
        """Do nothing: everything is already on the device."""

    def close(self) -> None:
        """Release the sources; the modules own their weights."""
        self._weights.clear()
