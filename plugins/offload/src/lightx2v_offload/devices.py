"""Device operations of an offloader: allocation, copies and events.

Schedules are tested without a GPU against this interface: ``late`` has a test device that is as strict as a GPU.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from lightx2v_core.api import RunError


class Event(Protocol):
    """A point in a queue of a device."""

    def synchronize(self) -> None:
        """Block the calling thread until the device has reached this point."""


class Accelerator(Protocol):
    """A device with its own memory, a queue of computations and a queue of copies."""

    #: whether the device computes from host memory, so that nothing is copied
    shared: bool

    def host(self, nbytes: int) -> Tensor:
        """Allocate host memory, uint8 [nbytes], from which copies are fast."""

    def free(self, memory: Tensor) -> None:
        """Prepare host memory for deallocation; no copy in flight uses it."""

    def memory(self, nbytes: int) -> Tensor:
        """Allocate device memory, uint8 [nbytes]."""

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        """Enqueue a copy of ``source`` [n] to ``target`` [n] that starts after ``after``; return the event of its end.

        Does not block.
        """

    def wait(self, event: Event) -> None:
        """Order all later computations after ``event``. Does not block."""

    def mark(self) -> Event:
        """Record an event after the computations queued so far. Does not block."""

    def settle(self) -> None:
        """Wait until both queues are empty. Memory may be released afterwards."""


class CompletedEvent:
    """An event of a synchronous device."""

    def synchronize(self) -> None:
        """Do nothing: the event has passed."""


class HostDevice:
    """The CPU. Without ``shared``, "device" memory is ordinary memory that weights are copied to."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared

    def host(self, nbytes: int) -> Tensor:
        return _pages(nbytes)

    def free(self, memory: Tensor) -> None:
        """Do nothing: the memory is freed with its last reference."""

    def memory(self, nbytes: int) -> Tensor:
        return _empty(nbytes, "cpu")

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        target.copy_(source)
        return CompletedEvent()

    def wait(self, event: Event) -> None:
        """Do nothing: every event has passed."""

    def mark(self) -> Event:
        return CompletedEvent()

    def settle(self) -> None:
        """Do nothing: every operation has ended."""


class CudaDevice:
    """A GPU. Copies run on their own stream; events order it against the compute stream."""

    shared = False

    def __init__(self, name: str, *, pin: bool) -> None:
        self._device = torch.device(name)
        self._pin = pin
        self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def host(self, nbytes: int) -> Tensor:
        """Allocate host memory and pin it in place.

        Torch's own allocator of pinned memory rounds sizes up to powers of two. Raises ``RunError`` when the operating
        system refuses to pin more.
        """
        memory = _pages(nbytes)
        if self._pin and nbytes:
            memory.zero_()  # pages that are already mapped are pinned much faster
            status = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), nbytes, 0)  # type: ignore[no-untyped-call]
            if int(status) != 0:
                # CUDA reports the error again at the next call that checks for it, such as a kernel launch; an
                # operation here clears it, so that later uses of the device do not raise it
                with suppress(RuntimeError):
                    torch.ones(1, device=self._device)
                raise RunError(
                    f"cannot pin {nbytes / 2**30:.1f} GiB of host memory (CUDA error {int(status)}); set "
                    "the offloader's option pin to false, or raise the limit of locked memory (ulimit -l)"
                )
        return memory

    def free(self, memory: Tensor) -> None:
        if self._pin and memory.nbytes:
            torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())  # type: ignore[no-untyped-call]

    def memory(self, nbytes: int) -> Tensor:
        return _empty(nbytes, self._device)

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        with torch.cuda.stream(self._copies):
            if after is not None:
                assert isinstance(after, torch.cuda.Event)
                self._copies.wait_event(after)
            target.copy_(source, non_blocking=True)
            # threads wait for this event: spinning would take a core from the computation
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(self._copies)
        return event

    def wait(self, event: Event) -> None:
        assert isinstance(event, torch.cuda.Event)
        torch.cuda.current_stream(self._device).wait_event(event)

    def mark(self) -> Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def settle(self) -> None:
        torch.cuda.synchronize(self._device)


def _pages(nbytes: int) -> Tensor:
    """Allocate whole pages, huge ones where the operating system has them.

    With fewer pages, direct reads into the memory and networks that compute from it need fewer address lookups.
    """
    if not nbytes:
        return _empty(0, "cpu")
    pages = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    with torch.inference_mode(False):
        return torch.frombuffer(pages, dtype=torch.uint8)


def _empty(nbytes: int, device: str | torch.device) -> Tensor:
    """Create an ordinary tensor, even in inference mode: it is written to outside of it."""
    with torch.inference_mode(False):
        return torch.empty(nbytes, dtype=torch.uint8, device=device)
