"""Forecasts of memory and time under an offloader, from sizes alone. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from lightx2v_core.api import BuildContext, OffloadForecast, Workload
from lightx2v_offload.options import CpuOptions, DiskOptions
from lightx2v_offload.residency import Residency, allowance, plan_residency

#: fraction of a block in its largest phase; Wan's phases are two attentions and the feed-forward network
_LARGEST_PHASE = 0.42
_PHASES = 3


def cpu_forecast(options: CpuOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    """Forecast the ``cpu`` offloader: all weights in host memory, copied to the device for use."""
    host = sum(load.weights for load in loads)
    limit = ctx.budget.device
    if limit is not None and ctx.device.kind == "cpu":
        limit = max(limit - host, 0)
    if options.granularity == "model":
        residencies = {load.name: _whole_component(load) for load in loads}
    else:
        residencies = {
            load.name: _component_residency(load, limit, ctx, options.granularity, options.slots)
            for load in loads
        }
    exposed = [
        load.passes * max(residencies[load.name].streamed / ctx.speeds.copy - load.seconds, 0.0)
        for load in loads
    ]
    weights, activations = _peak(residencies, limit, ctx, loads)
    return OffloadForecast(
        weights=weights,
        activations=activations,
        host=host,
        moved=max((load.passes * residencies[load.name].streamed for load in loads), default=0),
        exposed=max(exposed, default=0.0),
        switching=sum(residency.held for residency in residencies.values()) / ctx.speeds.copy,
        detail=_detail("cpu", residencies, loads, options.granularity, "on the device"),
    )


def disk_forecast(options: DiskOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    """Forecast the ``disk`` offloader: weights in files, a ring of buffers and as many blocks as fit in host memory."""
    shared = ctx.device.kind == "cpu"
    limit = ctx.budget.host if shared else ctx.budget.device
    buffers = options.ring if shared else options.slots
    residencies = {
        load.name: _component_residency(load, limit, ctx, options.granularity, buffers) for load in loads
    }
    weights, activations = _peak(residencies, limit, ctx, loads)
    read, host = residencies, 0
    if not shared:
        # units that stay on the device are read once, and so are those of the rest that fit into host memory
        read = {load.name: _host_residency(load, residencies[load.name], options, ctx) for load in loads}
        host = max((residency.total for residency in read.values()), default=0)
    exposed = []
    for load in loads:
        copying = 0.0 if shared else residencies[load.name].streamed / ctx.speeds.copy
        waiting = max(read[load.name].streamed / ctx.speeds.disk, copying)
        exposed.append(load.passes * max(waiting - load.seconds, 0.0))
    where = "in memory" if shared else "on the device"
    scratch = sum(load.weights for load in loads if not load.direct)
    # held weights are read once; computed weights are written once and read back
    once = sum(residency.held for residency in residencies.values()) + scratch
    return OffloadForecast(
        weights=weights,
        activations=activations,
        host=host,
        moved=max((load.passes * residencies[load.name].streamed for load in loads), default=0),
        exposed=max(exposed, default=0.0),
        switching=once / ctx.speeds.disk,
        scratch=scratch,
        detail=_detail("disk", residencies, loads, options.granularity, where),
    )


def _host_residency(load: Workload, device: Residency, options: DiskOptions, ctx: BuildContext) -> Residency:
    """Plan the residency in host memory of the units streamed to the device."""
    sizes = [size for index, size in enumerate(_sizes(load, options.granularity)) if index not in device.stay]
    return plan_residency(sizes, _rest(load), ctx.budget.host, options.ring)


def _sizes(load: Workload, granularity: str) -> list[int]:
    if granularity == "block":
        return list(load.blocks)
    small = (1 - _LARGEST_PHASE) / (_PHASES - 1)
    parts = (small, small, _LARGEST_PHASE)
    return [round(size * part) for size in load.blocks for part in parts]


def _rest(load: Workload) -> int:
    return max(load.weights - sum(load.blocks), 0)


def _whole_component(load: Workload) -> Residency:
    return Residency(stay=frozenset(range(len(load.blocks))), streamed=0, buffers=0, held=load.weights)


def _component_residency(
    load: Workload, limit: int | None, ctx: BuildContext, granularity: str, buffers: int
) -> Residency:
    activations = ctx.budget.activations.get(load.name, load.activations)
    return plan_residency(_sizes(load, granularity), _rest(load), allowance(limit, activations), buffers)


def _peak(
    residencies: dict[str, Residency], limit: int | None, ctx: BuildContext, loads: Sequence[Workload]
) -> tuple[int, int]:
    """Return the bytes of weights and activations at the peak, with earlier components resident while they fit."""
    everything = sum(residency.total for residency in residencies.values())
    weights = {}
    for load in loads:
        room = allowance(limit, ctx.budget.activations.get(load.name, load.activations))
        least = residencies[load.name].total
        weights[load.name] = least if room is None else min(max(room, least), everything)
    most = max(weights.values(), default=0)
    peak = max((weights[load.name] + load.activations for load in loads), default=0)
    return most, peak - most


def _detail(
    name: str, residencies: dict[str, Residency], loads: Sequence[Workload], granularity: str, where: str
) -> str:
    working = [load for load in loads if load.passes] or list(loads)
    if granularity == "model":
        return f"{name}: one component at a time {where}"
    if not working:
        return name
    load = working[0]
    stays, count = len(residencies[load.name].stay), len(_sizes(load, granularity))
    unit = {"block": "blocks", "phase": "phases"}[granularity]
    return f"{name}: {stays} of {count} {unit} of {load.name} stay {where}, the others are streamed"
