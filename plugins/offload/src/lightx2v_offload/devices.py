"""The few things an offloader does with a device. A schedule that speaks to this interface can be proven without one:
``late`` has a device for tests that is as strict as a GPU."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

from lightx2v_core.api import RunError


class Event(Protocol):
    """A point in the work of a device."""

    def synchronize(self) -> None:
        """The calling thread waits until the device has come there."""


class Accelerator(Protocol):
    """A device with memory of its own, an order of computing, and an order of copies beside it."""

    #: computing reads host memory itself: nothing is copied
    shared: bool

    def host(self, nbytes: int) -> Tensor:
        """Host memory, uint8, from which copies are fast."""

    def free(self, memory: Tensor) -> None:
        """Host memory is about to be given back; nothing on its way uses it."""

    def memory(self, nbytes: int) -> Tensor:
        """Device memory, uint8."""

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        """Queue a copy of ``source`` [n] to ``target`` [n], to start when ``after`` has passed; the event is its end.
        Returns at once."""

    def wait(self, event: Event) -> None:
        """What is computed from now on comes after ``event``. Returns at once."""

    def mark(self) -> Event:
        """The end of what was given to compute so far. Returns at once."""

    def settle(self) -> None:
        """The calling thread waits until nothing is on its way. Memory may be given back then."""


class CompletedEvent:
    """An event of a device that does everything at once."""

    def synchronize(self) -> None:
        """It has passed."""


class HostDevice:
    """The CPU. With ``shared`` off, "device" memory is ordinary memory that weights are copied to."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared

    def host(self, nbytes: int) -> Tensor:
        return _pages(nbytes)

    def free(self, memory: Tensor) -> None:
        """It goes when the last reference does."""

    def memory(self, nbytes: int) -> Tensor:
        return _empty(nbytes, "cpu")

    def copy(self, source: Tensor, target: Tensor, after: Event | None) -> Event:
        target.copy_(source)
        return CompletedEvent()

    def wait(self, event: Event) -> None:
        """Everything has passed."""

    def mark(self) -> Event:
        return CompletedEvent()

    def settle(self) -> None:
        """Everything has passed."""


class CudaDevice:
    """A GPU. Copies have a stream of their own; events order it and the stream that computes."""

    shared = False

    def __init__(self, name: str, *, pin: bool) -> None:
        self._device = torch.device(name)
        self._pin = pin
        self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def host(self, nbytes: int) -> Tensor:
        """Locked in place rather than taken from torch's pool of locked memory, which rounds sizes up to powers of
        two. ``RunError`` when the system allows no more of it."""
        memory = _pages(nbytes)
        if self._pin and nbytes:
            memory.zero_()  # pages that are there are locked much faster
            status = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), nbytes, 0)  # type: ignore[no-untyped-call]
            if int(status) != 0:
                # CUDA keeps the error for whoever asks next, which a kernel that is started does; who goes on to use
                # the device would be told of it then
                with suppress(RuntimeError):
                    torch.ones(1, device=self._device)
                raise RunError(
                    f"{nbytes / 2**30:.1f} GiB of host memory could not be locked (CUDA error {int(status)}); set "
                    "the offloader's option pin to false, or allow more locked memory (ulimit -l)"
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
            # threads wait for it: one that spins takes a core from what computes
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
    """Memory in whole pages, large ones where the system has them: a disk that writes into it, and a network that
    reads it, have fewer to look up."""
    if not nbytes:
        return _empty(0, "cpu")
    pages = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # of a system that was built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    with torch.inference_mode(False):
        return torch.frombuffer(pages, dtype=torch.uint8)


def _empty(nbytes: int, device: str | torch.device) -> Tensor:
    """An ordinary tensor, also when it is made in inference mode: it is written again outside of it."""
    with torch.inference_mode(False):
        return torch.empty(nbytes, dtype=torch.uint8, device=device)
