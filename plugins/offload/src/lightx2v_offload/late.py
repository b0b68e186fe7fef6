"""A device for tests: it does everything as late as its events allow, and refuses what CUDA refuses.

A GPU does what is queued at some time between the call and the event that somebody waits for, so a schedule has to be
right at both ends. What is copied here is copied at the last moment: until then whoever reads the target finds what was
there before, and whoever writes to the source changes what arrives. That nothing may start too early is read from the
events: ``check`` compares what every use and every copy was told to wait for.
"""

from __future__ import annotations

import weakref
from collections import deque
from threading import RLock
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from lightx2v_offload.devices import Event

#: bytes, of memory that a GPU gives
_ALIGNMENT = 512
#: bytes that one instruction of a GPU loads
_VECTOR = 16
#: what is in memory that nothing was written to: not a number, in every floating type
_GARBAGE = 0xFF


@define(eq=False)
class QueueEvent:
    """A point on one of the two queues: how much was queued there before."""

    queue: str
    at: int
    device: LateDevice

    def synchronize(self) -> None:
        self.device.reach(self)


@define(eq=False)
class LateDevice:
    """An ``Accelerator`` with two queues, of copies and of computing. ``log`` holds what the host queued, in its order.

    ``RuntimeError`` for what a GPU would refuse or spoil: copies between unequal sizes or from memory that is not
    locked, memory that is given back while a copy is on its way, weights that lie in host memory.
    """

    shared = False
    #: ("copy", buffer, uses that it waits for) or ("use", buffer, copies that it waits for)
    log: list[tuple[str, int, int]] = field(factory=list)
    #: copies that were queued
    copied: int = 0
    #: uses that were queued
    used: int = 0
    #: copies that computing has been told to wait for
    awaited: int = 0
    #: how often a thread waited
    waits: int = 0
    #: bytes of locked host memory
    taken: int = 0
    _arrived: int = 0
    _queue: deque[tuple[Tensor, Tensor]] = field(factory=deque)
    _host: dict[int, int] = field(factory=dict)
    _device: dict[int, int] = field(factory=dict)
    #: what is found out where nothing can be raised
    _faults: list[str] = field(factory=list)
    #: readers wait for events in threads of their own
    _lock: RLock = field(factory=RLock)

    def host(self, nbytes: int) -> Tensor:
        memory = _garbage(nbytes)
        with self._lock:
            self.taken += nbytes
            self._host[memory.data_ptr()] = nbytes
        return memory

    def free(self, memory: Tensor) -> None:
        with self._lock:
            address = memory.data_ptr()
            if self._host.get(address) != memory.nbytes:
                raise RuntimeError("host memory is unlocked that was not locked")
            if any(address <= source.data_ptr() < address + memory.nbytes for source, _ in self._queue):
                raise RuntimeError("host memory is unlocked while a copy is on its way from it")
            del self._host[address]
            self.taken -= memory.nbytes
            memory.fill_(_GARBAGE)

    def memory(self, nbytes: int) -> Tensor:
        memory = _garbage(nbytes)
        with self._lock:
            self._device[memory.data_ptr()] = nbytes
        weakref.finalize(memory, self._gone, memory.data_ptr(), nbytes).atexit = False
        return memory

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        for name, memory in (("source", source), ("target", target)):
            if memory.dtype != torch.uint8 or memory.dim() != 1 or not memory.is_contiguous():
                raise RuntimeError(
                    f"the {name} of a copy is not a row of bytes: {memory.dtype} {memory.shape}"
                )
        if source.nbytes != target.nbytes:
            raise RuntimeError(f"{source.nbytes} bytes are copied to {target.nbytes}")
        with self._lock:
            self._raise()
            if source.nbytes and not _inside(source, self._host):
                raise RuntimeError("a copy reads memory that is not locked")
            buffer = _inside(target, self._device) if target.nbytes else 0
            if buffer is None:
                raise RuntimeError("a copy writes to memory that is not the device's")
            waits_for = 0
            if after is not None:
                assert isinstance(after, QueueEvent)
                assert (after.queue, after.device) == ("computing", self)
                waits_for = after.at
            self.log.append(("copy", buffer, waits_for))
            self._queue.append((source[:], target[:]))  # of the tensors themselves, none is held
            self.copied += 1
            return QueueEvent("copies", self.copied, self)

    def wait(self, event: Event) -> None:
        assert isinstance(event, QueueEvent)
        assert (event.queue, event.device) == ("copies", self)
        with self._lock:
            # what computes runs when it is called, so what it waits for has to arrive now
            self._arrive(event.at)
            self.awaited = max(self.awaited, event.at)

    def mark(self) -> Event:
        return QueueEvent("computing", self.used, self)

    def settle(self) -> None:
        with self._lock:
            self.waits += 1
            self._arrive(self.copied)
            self._raise()

    def reach(self, point: QueueEvent) -> None:
        """A thread waits for a point."""
        with self._lock:
            self.waits += 1
            if point.queue == "copies":
                self._arrive(point.at)

    def use(self, module: torch.nn.Module, _inputs: Any) -> None:
        """A hook for modules: their weights are read now."""
        with self._lock:
            buffers = set()
            for parameter in module.parameters(recurse=False):
                buffer = _inside(parameter, self._device)
                if buffer is None:
                    raise RuntimeError(f"{module} computes with weights that are not on the device")
                if parameter.data_ptr() % _VECTOR:
                    raise RuntimeError(f"{module} computes with weights at an odd address")
                buffers.add(buffer)
            for buffer in sorted(buffers):
                self.used += 1
                self.log.append(("use", buffer, self.awaited))

    def check(self) -> None:
        """Whatever the device does first where events leave it free, no copy starts before the last use of its buffer
        has ended, and no use before the last copy into its buffer has."""
        self._raise()
        uses: dict[int, int] = {}
        copies: dict[int, int] = {}
        used = copied = 0
        for kind, buffer, waits_for in self.log:
            if kind == "use":
                used += 1
                uses[buffer] = used
                assert waits_for >= copies[buffer], "a use may start before its copy has ended"
            else:
                copied += 1
                copies[buffer] = copied
                assert waits_for >= uses.get(buffer, 0), "a copy may start before the last use has ended"

    def _arrive(self, count: int) -> None:
        """The first ``count`` copies end."""
        while self._arrived < count:
            source, target = self._queue.popleft()
            target.copy_(source)
            self._arrived += 1

    def _gone(self, address: int, nbytes: int) -> None:
        """Memory of the device was given back: somebody else may have it from now on."""
        with self._lock:
            if any(address <= target.data_ptr() < address + nbytes for _, target in self._queue):
                self._faults.append("memory of the device was given back while a copy was on its way to it")
            del self._device[address]

    def _raise(self) -> None:
        if self._faults:
            raise RuntimeError(self._faults[0])


def _garbage(nbytes: int) -> Tensor:
    """Bytes at an address as a GPU gives them; room for one more byte, so that no two have the same address."""
    with torch.inference_mode(False):
        whole = torch.full((nbytes + 1 + _ALIGNMENT,), _GARBAGE, dtype=torch.uint8)
        start = -whole.data_ptr() % _ALIGNMENT
        return whole[start : start + nbytes]


def _inside(memory: Tensor, known: dict[int, int]) -> int | None:
    """Where what ``memory`` lies in begins; ``None`` when all of it lies in nothing of ``known``."""
    start, end = memory.data_ptr(), memory.data_ptr() + memory.nbytes
    return next((base for base, size in known.items() if base <= start and end <= base + size), None)
