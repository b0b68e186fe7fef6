"""The core's own hook implementations: the same rules as for third parties, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

from lightx2v_core.api import (
    Attention,
    AttentionSpec,
    BuildContext,
    Header,
    NoOptions,
    Offloader,
    OffloaderSpec,
    Scheduler,
    SchedulerContext,
    SchedulerSpec,
    WeightLoaderSpec,
    WeightSource,
    hookimpl,
)


def _safetensors_header(path: Path) -> Header:
    from lightx2v_core.builtin.safetensors_file import read_header

    return read_header(path)


def _safetensors(_config: NoOptions, _ctx: BuildContext) -> Callable[[Header], WeightSource]:
    from lightx2v_core.builtin.safetensors_file import SafetensorsSource

    return SafetensorsSource


def _torch_header(path: Path) -> Header:
    from lightx2v_core.builtin.torch_file import read_header

    return read_header(path)


def _torch(_config: NoOptions, _ctx: BuildContext) -> Callable[[Header], WeightSource]:
    from lightx2v_core.builtin.torch_file import TorchSource

    return TorchSource


@hookimpl
def lightx2v_weight_loaders() -> list[WeightLoaderSpec[NoOptions]]:
    return [
        WeightLoaderSpec(
            name="safetensors",
            summary="safetensors files, one or several shards, read tensor by tensor",
            suffixes=(".safetensors",),
            read_header=_safetensors_header,
            build=_safetensors,
        ),
        WeightLoaderSpec(
            name="torch",
            summary="torch.save files, memory-mapped, tensors only",
            suffixes=(".pth", ".pt", ".bin"),
            read_header=_torch_header,
            build=_torch,
        ),
    ]


def _sdpa(_config: NoOptions, ctx: BuildContext) -> Attention:
    from lightx2v_core.builtin.sdpa import sdpa_for

    return sdpa_for(ctx.device)


@hookimpl
def lightx2v_attention_backends() -> list[AttentionSpec[NoOptions]]:
    return [
        AttentionSpec(
            name="sdpa",
            summary="PyTorch's scaled_dot_product_attention: cuDNN on Hopper, flash or efficient elsewhere",
            build=_sdpa,
        )
    ]


def _resident(_config: NoOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_core.builtin.resident import Resident

    return Resident(ctx.device.torch_name)


@hookimpl
def lightx2v_offloaders() -> list[OffloaderSpec[NoOptions]]:
    return [OffloaderSpec(name="none", summary="every component stays on the device", build=_resident)]


@frozen(kw_only=True)
class EulerOptions:
    """Options of the ``euler`` scheduler."""

    #: ``linear`` starts at noise level 1, ``unipc`` is the grid of the ``unipc`` scheduler
    grid: Literal["linear", "unipc"] = "linear"


def _unipc(_config: NoOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.unipc import FlowUniPC

    return FlowUniPC(ctx.steps, ctx.shift)


def _dpmpp(_config: NoOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.dpmpp import FlowDPMSolverPP

    return FlowDPMSolverPP(ctx.steps, ctx.shift)


def _euler(config: EulerOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.euler import FlowEuler

    return FlowEuler(ctx.steps, ctx.shift, grid=config.grid)


@hookimpl
def lightx2v_schedulers() -> list[SchedulerSpec[NoOptions] | SchedulerSpec[EulerOptions]]:
    return [
        SchedulerSpec(
            name="unipc", summary="UniPC for flow matching, order 2; the official default", build=_unipc
        ),
        SchedulerSpec(name="dpm++", summary="DPM-Solver++ 2M for flow matching", build=_dpmpp),
        SchedulerSpec(name="euler", summary="plain Euler steps", config=EulerOptions, build=_euler),
    ]
