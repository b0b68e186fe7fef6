"""Specs of the offloaders. Builders and forecasts import torch only when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightx2v_core.api import BuildContext, OffloaderSpec, hookimpl
from lightx2v_offload.options import CpuOptions, DiskOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightx2v_core.api import Offloader, OffloadForecast, Workload


def _cpu(options: CpuOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_offload.building import build_cpu

    return build_cpu(options, ctx)


def _disk(options: DiskOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_offload.building import build_disk

    return build_disk(options, ctx)


def _cpu_forecast(options: CpuOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    from lightx2v_offload.forecast import cpu_forecast

    return cpu_forecast(options, ctx, loads)


def _disk_forecast(options: DiskOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    from lightx2v_offload.forecast import disk_forecast

    return disk_forecast(options, ctx, loads)


@hookimpl
def lightx2v_offloaders() -> list[OffloaderSpec[Any]]:
    return [
        OffloaderSpec(
            name="cpu",
            summary="weights in host memory, copied to the device block by block during computation",
            config=CpuOptions,
            build=_cpu,
            forecast=_cpu_forecast,
            settings=(
                CpuOptions(granularity="model"),
                CpuOptions(granularity="block"),
                CpuOptions(granularity="phase"),
            ),
        ),
        OffloaderSpec(
            name="disk",
            summary="weights in their files, read block by block during computation",
            config=DiskOptions,
            build=_disk,
            forecast=_disk_forecast,
            settings=(DiskOptions(granularity="block"), DiskOptions(granularity="phase")),
        ),
    ]
