"""A test device that runs every copy as late as its events allow, and rejects the calls that CUDA rejects.

A GPU runs a queued operation at any time between the call and the event that a caller waits for, so a schedule must be
correct at both extremes. This device copies at the last moment: until then, reads of the target return its old
contents, and writes to the source change the copied bytes. The other extreme, operations that start too early, follows
from the events: ``check`` compares the events that every use and every copy waits for.
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

#: alignment of memory allocated on a GPU, in bytes
_ALIGNMENT = 512
#: bytes loaded by one instruction of a GPU
_VECTOR = 16
#: value of every byte of uninitialized memory: NaN, in every floating type
_GARBAGE = 0xFF


@define(eq=False)
class QueueEvent:
    """A point on one of the two queues, as the number of operations queued before it."""

    queue: str
    at: int
    device: LateDevice

    def synchronize(self) -> None:
        self.device.reach(self)


@define(eq=False)
class LateDevice:
    """An ``Accelerator`` with two queues, of copies and of computations. ``log`` lists the queued operations in order.

    Raises ``RuntimeError`` for operations that a GPU would reject or corrupt: copies between unequal sizes or from
    memory that is not pinned, memory released while a copy is in flight, weights in host memory.
    """

    shared = False
    #: ("copy", buffer, number of uses it waits for) or ("use", buffer, number of copies it waits for)
    log: list[tuple[str, int, int]] = field(factory=list)
    #: number of queued copies
    copied: int = 0
    #: number of queued uses
    used: int = 0
    #: number of copies that later computations wait for
    awaited: int = 0
    #: number of waits of a thread
    waits: int = 0
    #: bytes of pinned host memory
    taken: int = 0
    _arrived: int = 0
    _queue: deque[tuple[Tensor, Tensor]] = field(factory=deque)
    _host: dict[int, int] = field(factory=dict)
    _device: dict[int, int] = field(factory=dict)
    #: errors found in finalizers, raised at the next operation
    _faults: list[str] = field(factory=list)
    #: readers wait for events in their own threads
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
                raise RuntimeError("host memory is unpinned that was not pinned")
            if any(address <= source.data_ptr() < address + memory.nbytes for source, _ in self._queue):
                raise RuntimeError("host memory is unpinned while a copy from it is in flight")
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
                    f"the {name} of a copy is not a 1-D tensor of bytes: {memory.dtype} {memory.shape}"
                )
        if source.nbytes != target.nbytes:
            raise RuntimeError(
                f"a copy has a source of {source.nbytes} bytes and a target of {target.nbytes}"
            )
        with self._lock:
            self._raise()
            if source.nbytes and not _inside(source, self._host):
                raise RuntimeError("a copy reads memory that is not pinned")
            buffer = _inside(target, self._device) if target.nbytes else 0
            if buffer is None:
                raise RuntimeError("a copy writes to memory outside the device")
            waits_for = 0
            if after is not None:
                assert isinstance(after, QueueEvent)
                assert (after.queue, after.device) == ("computing", self)
                waits_for = after.at
            self.log.append(("copy", buffer, waits_for))
            self._queue.append((source[:], target[:]))  # views, so that the tensors themselves can be freed
            self.copied += 1
            return QueueEvent("copies", self.copied, self)

    def wait(self, event: Event) -> None:
        assert isinstance(event, QueueEvent)
        assert (event.queue, event.device) == ("copies", self)
        with self._lock:
            # computations run when they are called, so the copies they wait for must end now
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
        """Block the calling thread until ``point`` is reached."""
        with self._lock:
            self.waits += 1
            if point.queue == "copies":
                self._arrive(point.at)

    def use(self, module: torch.nn.Module, _inputs: Any) -> None:
        """Record the use of a module's weights; a forward pre-hook."""
        with self._lock:
            buffers = set()
            for parameter in module.parameters(recurse=False):
                buffer = _inside(parameter, self._device)
                if buffer is None:
                    raise RuntimeError(f"{module} computes with weights that are not on the device")
                if parameter.data_ptr() % _VECTOR:
                    raise RuntimeError(f"{module} computes with weights at an unaligned address")
                buffers.add(buffer)
            for buffer in sorted(buffers):
                self.used += 1
                self.log.append(("use", buffer, self.awaited))

    def check(self) -> None:
        """Verify that the events rule out races, in every order of execution that they allow.

        No copy starts before the last use of its buffer has ended, and no use before the last copy to its buffer has.
        """
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
        """Run the copies up to number ``count``."""
        while self._arrived < count:
            source, target = self._queue.popleft()
            target.copy_(source)
            self._arrived += 1

    def _gone(self, address: int, nbytes: int) -> None:
        """Record the release of device memory, which another allocation may reuse from now on."""
        with self._lock:
            if any(address <= target.data_ptr() < address + nbytes for _, target in self._queue):
                self._faults.append("device memory was released while a copy to it was in flight")
            del self._device[address]

    def _raise(self) -> None:
        if self._faults:
            raise RuntimeError(self._faults[0])


def _garbage(nbytes: int) -> Tensor:
    """Allocate bytes at an address aligned as on a GPU; one spare byte keeps addresses of empty tensors distinct."""
    with torch.inference_mode(False):
        whole = torch.full((nbytes + 1 + _ALIGNMENT,), _GARBAGE, dtype=torch.uint8)
        start = -whole.data_ptr() % _ALIGNMENT
        return whole[start : start + nbytes]


def _inside(memory: Tensor, known: dict[int, int]) -> int | None:
    """Return the start of the allocation of ``known`` that contains all of ``memory``, or ``None``."""
    start, end = memory.data_ptr(), memory.data_ptr() + memory.nbytes
    return next((base for base, size in known.items() if base <= start and end <= base + size), None)
