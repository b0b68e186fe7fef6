"""Where the weights of units lie in host memory, as what moves them to a device sees it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from torch import Tensor

from lightx2v_core.api import ModuleWeights
from lightx2v_offload.devices import Accelerator, Event
from lightx2v_offload.units import Unit


class Store(Protocol):
    """Gives the bytes of a unit in host memory, and is told when they are no longer used."""

    def add(self, units: Sequence[Unit], weights: ModuleWeights) -> None:
        """Take over the units of a component. ``RunError`` when there is no room for them."""

    def refresh(self, units: Sequence[Unit], names: Collection[str]) -> None:
        """The stored values of ``names``, which are in ``units`` of one component, are others now. Nothing of it may be
        in use or on its way. ``RunError`` when they cannot be read."""

    def expect(self, units: Sequence[Unit]) -> None:
        """The units that are asked for next, in this order."""

    def keep(self, units: Collection[Unit]) -> None:
        """The units whose bytes stay once they are there; those of all others go. Nothing may be on its way."""

    def ready(self, unit: Unit) -> bool:
        """Whether ``acquire`` returns at once."""

    def acquire(self, unit: Unit) -> Tensor:
        """The bytes of a unit, uint8. ``RunError`` when they cannot be read."""

    def release(self, unit: Unit, after: Event | None) -> None:
        """The bytes are no longer used once ``after`` has passed."""

    def close(self) -> None:
        """Give back everything."""


class HostStore:
    """All weights, in host memory from the start."""

    def __init__(self, device: Accelerator) -> None:
        self._device = device
        self._memory: dict[Unit, Tensor] = {}
        self._weights: dict[Unit, ModuleWeights] = {}

    def add(self, units: Sequence[Unit], weights: ModuleWeights) -> None:
        for unit in units:
            memory = self._memory[unit] = self._device.host(unit.nbytes)
            self._weights[unit] = weights
            for index, tensor in enumerate(unit.tensors):
                weights.read_into(tensor.name, unit.view(index, memory))

    def refresh(self, units: Sequence[Unit], names: Collection[str]) -> None:
        for unit in units:
            for index, tensor in enumerate(unit.tensors):
                if tensor.name in names:
                    self._weights[unit].read_into(tensor.name, unit.view(index, self._memory[unit]))

    def expect(self, units: Sequence[Unit]) -> None:
        """Everything is there already."""

    def keep(self, units: Collection[Unit]) -> None:
        """Everything stays."""

    def ready(self, unit: Unit) -> bool:
        return True

    def acquire(self, unit: Unit) -> Tensor:
        return self._memory[unit]

    def release(self, unit: Unit, after: Event | None) -> None:
        """It stays."""

    def close(self) -> None:
        while self._memory:
            self._device.free(self._memory.popitem()[1])
