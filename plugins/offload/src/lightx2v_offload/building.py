"""Builders of the offloaders, from options and budgets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from lightx2v_core.api import BuildContext
from lightx2v_offload.devices import Accelerator, CudaDevice, HostDevice
from lightx2v_offload.offloader import BlockOffloader, Part
from lightx2v_offload.options import CpuOptions, DiskOptions
from lightx2v_offload.residency import Residency, allowance, plan_residency
from lightx2v_offload.ring import RingStore
from lightx2v_offload.stores import HostStore
from lightx2v_offload.streams import CopyStream, LendStream


def build_cpu(options: CpuOptions, ctx: BuildContext, device: Accelerator | None = None) -> BlockOffloader:
    """Build the ``cpu`` offloader. ``device`` replaces the device of the context."""
    if device is None:
        on_cpu = ctx.device.kind == "cpu"
        device = HostDevice(shared=False) if on_cpu else CudaDevice(ctx.device.torch_name, pin=options.pin)
    store = HostStore(device)
    limits = Limits(ctx, ctx.budget.device, options.slots, whole=options.granularity == "model")
    return BlockOffloader(
        CopyStream(device, store, options.slots),
        store,
        granularity=options.granularity,
        policy=limits.policy,
        room=limits.room,
        keep=lambda part: None,
    )


def build_disk(options: DiskOptions, ctx: BuildContext, device: Accelerator | None = None) -> BlockOffloader:
    """Build the ``disk`` offloader. ``device`` replaces the device of the context."""
    shared, host = ctx.device.kind == "cpu", host_budget(ctx)
    if device is None:
        device = HostDevice(shared=True) if shared else CudaDevice(ctx.device.torch_name, pin=options.pin)
    numbers = count()

    def scratch() -> tuple[str | None, str]:
        name = f"lightx2v-{os.getpid()}-{next(numbers)}.safetensors"
        return options.scratch, name if options.keep_scratch else ""

    store = RingStore(
        device, entries=options.ring, workers=options.workers, cached=options.cached, scratch=scratch
    )

    def keep(part: Part) -> None:
        streamed = [unit for unit in part.units if unit not in part.stay]
        residency = plan_residency([unit.nbytes for unit in streamed], part.rest.nbytes, host, options.ring)
        store.keep({streamed[index] for index in residency.stay})

    if device.shared:
        limits = Limits(ctx, host, options.ring)
        return BlockOffloader(
            LendStream(store),
            store,
            granularity=options.granularity,
            policy=limits.policy,
            room=limits.room,
            keep=lambda part: None,
        )
    limits = Limits(ctx, ctx.budget.device, options.slots)
    return BlockOffloader(
        CopyStream(device, store, options.slots),
        store,
        granularity=options.granularity,
        policy=limits.policy,
        room=limits.room,
        keep=keep,
    )


class Limits:
    """A limit in bytes, applied to each component after subtracting its activations."""

    def __init__(self, ctx: BuildContext, limit: int | None, buffers: int, *, whole: bool = False) -> None:
        self._activations = ctx.budget.activations
        self._limit, self._buffers, self._whole = limit, buffers, whole

    def policy(self, component: str, sizes: Sequence[int], rest: int) -> Residency:
        """Plan the resident units of a component from the sizes of its units and of the rest, in bytes."""
        room = sum(sizes) + rest if self._whole else self.room(component)
        return plan_residency(sizes, rest, room, self._buffers)

    def room(self, component: str) -> int | None:
        """Return the bytes for weights while a component runs; ``None`` without a limit."""
        return allowance(self._limit, self._activations.get(component, 0))


def host_budget(ctx: BuildContext) -> int | None:
    """Return the budget of host memory, corrected by the measured instead of the planned memory of the process."""
    if ctx.budget.host is None:
        return None
    return max(ctx.budget.host + ctx.budget.process - (process_memory() or ctx.budget.process), 0)


def process_memory() -> int:
    """Return the resident memory of this process, in bytes; 0 where the operating system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
