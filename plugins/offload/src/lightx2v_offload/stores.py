"""Stores of unit weights in host memory, the sources of copies to a device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from torch import Tensor

from lightx2v_core.api import ModuleWeights
from lightx2v_offload.devices import Accelerator, Event
from lightx2v_offload.units import Unit


class Store(Protocol):
    """Provider of the bytes of units in host memory, from ``acquire`` to ``release``."""

    def add(self, units: Sequence[Unit], weights: ModuleWeights) -> None:
        """Add the units of a component. Raises ``RunError`` when memory or disk space is insufficient."""

    def refresh(self, units: Sequence[Unit], names: Collection[str]) -> None:
        """Reload the tensors ``names``, in ``units`` of one component, after their stored values have changed.

        None of them may be in use or in transfer. Raises ``RunError`` when they cannot be read.
        """

    def expect(self, units: Sequence[Unit]) -> None:
        """Announce the units that are acquired next, in this order."""

    def keep(self, units: Collection[Unit]) -> None:
        """Keep the bytes of ``units`` once loaded, and drop those of all others. No unit may be in transfer."""

    def ready(self, unit: Unit) -> bool:
        """Return whether ``acquire`` would not block."""

    def acquire(self, unit: Unit) -> Tensor:
        """Return the bytes of a unit, uint8. Raises ``RunError`` when they cannot be read."""

    def release(self, unit: Unit, after: Event | None) -> None:
        """Release the bytes of a unit, which are in use until ``after`` has passed."""

    def close(self) -> None:
        """Release all memory and files."""


class HostStore:
    """A store that loads all weights into host memory at the start."""

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
        """Do nothing: all weights are loaded."""

    def keep(self, units: Collection[Unit]) -> None:
        """Do nothing: all weights stay."""

    def ready(self, unit: Unit) -> bool:
        return True

    def acquire(self, unit: Unit) -> Tensor:
        return self._memory[unit]

    def release(self, unit: Unit, after: Event | None) -> None:
        """Do nothing: the bytes stay."""

    def close(self) -> None:
        while self._memory:
            self._device.free(self._memory.popitem()[1])
