"""Streams of units to the device while a component computes.

A unit either is resident, in a buffer of its own, or occupies one of a few slots. Copies are queued in running order,
as far ahead as there are slots; a slot is refilled when the computation with its unit has ended. Events express this
order on the device, so the calling thread never waits for the device, only for bytes still being read from disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

from torch import Tensor

from lightx2v_core.api import RunError
from lightx2v_offload.devices import Accelerator, Event
from lightx2v_offload.stores import Store
from lightx2v_offload.units import Unit


class Stream(Protocol):
    """Transfer of units to the memory they compute from, one component at a time."""

    def begin(self, units: Sequence[Unit], following: Sequence[Unit]) -> None:
        """Start a pass that runs ``units`` in this order and is followed by one that runs ``following``."""

    def enter(self, unit: Unit) -> None:
        """Bind a unit whose module is being called."""

    def leave(self, unit: Unit) -> None:
        """Unbind a unit after the call of its module."""

    def end(self) -> None:
        """End the pass, complete or not."""

    def stay(self, units: Collection[Unit]) -> None:
        """Keep ``units`` resident once loaded, and release the memory of other resident units."""

    def resize(self, nbytes: int) -> None:
        """Set the size of the largest streamed unit, in bytes; 0: none is streamed."""

    def close(self) -> None:
        """Release all memory."""


class Buffer:
    """Device memory and the unit that is in it or being copied to it."""

    def __init__(self, memory: Tensor, free: Event) -> None:
        self.memory = memory
        self.unit: Unit | None = None
        #: the end of the copy to it
        self.ready: Event | None = None
        #: the end of its last use
        self.free: Event = free
        #: whether its contents may be overwritten: no upcoming call needs them
        self.spare = True


class CopyStream:
    """A stream that copies units from a store to the device."""

    def __init__(self, device: Accelerator, store: Store, slots: int) -> None:
        self._device = device
        self._store = store
        self._count = slots
        self._slots: list[Buffer] = []
        self._homes: dict[Unit, Buffer] = {}
        self._stay: frozenset[Unit] = frozenset()
        self._where: dict[Unit, Buffer] = {}
        self._upcoming: list[Unit] = []
        self._next = 0
        self._entered: list[Unit] = []
        self._bound: set[Unit] = set()

    def begin(self, units: Sequence[Unit], following: Sequence[Unit]) -> None:
        self._expect([*units, *following])
        self._pump()

    def enter(self, unit: Unit) -> None:
        self._come_to(unit)
        if unit not in self._where:
            self._pump()
        if unit not in self._where:
            self._fetch(unit, self._buffer(unit) or self._evicted())
        buffer = self._where[unit]
        buffer.spare = False
        assert buffer.ready is not None
        self._device.wait(buffer.ready)
        self._entered.append(unit)
        self._bound.add(unit)
        unit.bind(buffer.memory)
        self._upcoming.pop(0)
        self._next = max(self._next - 1, 0)

    def leave(self, unit: Unit) -> None:
        self._entered.remove(unit)
        self._done(unit)
        self._pump()

    def end(self) -> None:
        while self._entered:
            self._done(self._entered.pop())

    def stay(self, units: Collection[Unit]) -> None:
        self._device.settle()
        self._stay = frozenset(units)
        for unit in [unit for unit in self._homes if unit not in self._stay]:
            del self._homes[unit], self._where[unit]
        self._forget()

    def resize(self, nbytes: int) -> None:
        """Resize the slots if their size is not ``nbytes``; 0: have none. Contents of the old slots are dropped."""
        if nbytes == (self._slots[0].memory.nbytes if self._slots else 0):
            return
        self._device.settle()
        for slot in self._slots:
            if slot.unit is not None:
                del self._where[slot.unit]
        self._forget()
        self._slots = []
        if nbytes:
            self._slots = [
                Buffer(self._device.memory(nbytes), self._device.mark()) for _ in range(self._count)
            ]

    def close(self) -> None:
        self.end()
        self.stay(())
        self.resize(0)
        self._expect(())

    def _expect(self, upcoming: Sequence[Unit]) -> None:
        self._upcoming, self._next = list(upcoming), 0
        awaited = set(upcoming)
        for slot in self._slots:
            slot.spare = slot.unit not in awaited
        present, coming = set(self._where), []
        for unit in self._upcoming:
            if unit in present:
                present -= {unit} - self._stay  # a slot may be reused before the next call
            else:
                coming.append(unit)
        self._store.expect(coming)

    def _come_to(self, unit: Unit) -> None:
        """Drop the units expected before this one; insert this one first if it was not expected."""
        if self._upcoming[:1] == [unit]:
            return
        later = self._upcoming[self._upcoming.index(unit) :] if unit in self._upcoming else []
        self._expect(later or [unit, *self._upcoming])

    def _pump(self) -> None:
        """Enqueue copies in running order until no slot is free or the next unit is still being read from disk."""
        while self._next < len(self._upcoming):
            unit = self._upcoming[self._next]
            if unit in self._where:
                self._where[unit].spare = False
            else:
                if not self._store.ready(unit):
                    return
                buffer = self._buffer(unit)
                if buffer is None:
                    return
                self._fetch(unit, buffer)
            self._next += 1

    def _buffer(self, unit: Unit) -> Buffer | None:
        """Return a buffer for a unit: a new one if it stays, else a free slot, or ``None``."""
        if unit in self._stay:
            return Buffer(self._device.memory(unit.nbytes), self._device.mark())
        return next((slot for slot in self._slots if slot.unit is None), None) or next(
            (slot for slot in self._slots if slot.spare and slot.unit not in self._entered), None
        )

    def _evicted(self) -> Buffer:
        """Return the slot whose unit is needed last, to make way for an unexpected unit."""
        places = {unit: index for index, unit in reversed(list(enumerate(self._upcoming)))}
        free = [slot for slot in self._slots if slot.unit not in self._entered]
        assert free, "no more units are entered at once than there are slots"
        return max(free, key=lambda slot: places.get(slot.unit, len(places)))  # type: ignore[arg-type]

    def _fetch(self, unit: Unit, buffer: Buffer) -> None:
        """Enqueue the copy of a unit to ``buffer``.

        A failure leaves the buffer empty and the unit in the store; only a queued copy is recorded.
        """
        source = self._store.acquire(unit)
        if buffer.unit is not None:
            del self._where[buffer.unit]
            buffer.unit, buffer.spare = None, True
        try:
            # both may be larger than this unit: they fit any
            ready = self._device.copy(source[: unit.nbytes], buffer.memory[: unit.nbytes], buffer.free)
        except BaseException:
            with suppress(
                RunError
            ):  # an error of the store's next read; the error of the copy is the one to raise
                self._store.release(unit, None)
            raise
        buffer.unit, buffer.spare, buffer.ready = unit, False, ready
        self._where[unit] = buffer
        if unit in self._stay:
            self._homes[unit] = buffer
        self._store.release(unit, ready)

    def _forget(self) -> None:
        """Release the memory that modules were bound to; resident units are bound again at their next call."""
        while self._bound:
            self._bound.pop().forget()

    def _done(self, unit: Unit) -> None:
        unit.unbind()
        buffer = self._where[unit]
        buffer.free = self._device.mark()
        buffer.spare = True


class LendStream:
    """A stream that binds units to the memory of the store, for a device that computes from host memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bound: set[Unit] = set()
        self._upcoming: list[Unit] = []
        self._entered: list[Unit] = []

    def begin(self, units: Sequence[Unit], following: Sequence[Unit]) -> None:
        self._expect([*units, *following])

    def enter(self, unit: Unit) -> None:
        if unit not in self._upcoming:
            self._expect([unit, *self._upcoming])
        elif self._upcoming[0] is not unit:
            self._expect(self._upcoming[self._upcoming.index(unit) :])
        memory = self._store.acquire(unit)
        self._entered.append(unit)
        self._bound.add(unit)
        unit.bind(memory)
        self._upcoming.pop(0)

    def leave(self, unit: Unit) -> None:
        self._entered.remove(unit)
        self._done(unit)

    def end(self) -> None:
        while self._entered:
            self._done(self._entered.pop())

    def stay(self, units: Collection[Unit]) -> None:
        while self._bound:
            self._bound.pop().forget()
        self._store.keep(units)

    def resize(self, nbytes: int) -> None:
        """Do nothing: the store has its own buffers."""

    def close(self) -> None:
        self.end()
        self.stay(())

    def _expect(self, upcoming: Sequence[Unit]) -> None:
        self._upcoming = list(upcoming)
        self._store.expect(upcoming)

    def _done(self, unit: Unit) -> None:
        unit.unbind()
        self._store.release(unit, None)
