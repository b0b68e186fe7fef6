"""Hook implementations of the core. As in third-party plugins, nothing heavy is imported at module level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen
from attrs import validators as v

from lightx2v_core.api import (
    LORA_KINDS,
    AttentionSpec,
    BuildContext,
    LoraApplierSpec,
    NoOptions,
    OffloaderSpec,
    QuantizerOptions,
    QuantizerSpec,
    SchedulerSpec,
    WeightLoaderSpec,
    hookimpl,
)

if TYPE_CHECKING:
    from lightx2v_core.api import (
        Attention,
        Header,
        LoraApplier,
        Offloader,
        OffloadForecast,
        Quantizer,
        Scheduler,
        SchedulerContext,
        WeightSource,
        Workload,
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
            summary="safetensors files, single or sharded, read tensor by tensor",
            suffixes=(".safetensors",),
            read_header=_safetensors_header,
            build=_safetensors,
        ),
        WeightLoaderSpec(
            name="torch",
            summary="torch.save files, tensors only, read without unpickling",
            suffixes=(".pth", ".pt", ".bin", ".ckpt"),
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


#: formats with one scale per channel or tensor, whose integer product can be scaled afterwards
_INT8 = frozenset({"int8-channel", "int8-tensor", "int8-tensor-static"})
_FP8 = frozenset({"fp8-channel", "fp8-tensor", "fp8-tensor-static", "fp8-plain"})
#: other formats that are dequantized as ``weight * weight_scale``
_DECODED = frozenset(
    {"fp8-block128"}
    | {f"fp8-e5m2-{grain}" for grain in ("channel", "tensor", "tensor-static", "block128", "plain")}
)


@frozen(kw_only=True)
class DequantOptions:
    """Options of the ``dequant`` quantizer."""

    #: patterns of layers to leave unquantized
    keep: tuple[str, ...] = ()
    #: patterns of the only layers to quantize; empty: all
    only: tuple[str, ...] = ()
    #: format to quantize plain weights to while loading; None: leave them unquantized
    format: Literal["int8-channel", "fp8-channel", "int8-tensor", "fp8-tensor", "fp8-block128"] | None = None


def _dequant(_config: DequantOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_core.api import CodeQuantizer
    from lightx2v_core.builtin.quant.dequant import DecodedLinear

    return CodeQuantizer(DecodedLinear)


def _dequant_makes(config: DequantOptions) -> str | None:
    return config.format


def _fp8_torch(_config: QuantizerOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_core.api import CodeQuantizer
    from lightx2v_core.builtin.quant.scaled_mm import Fp8Linear

    return CodeQuantizer(Fp8Linear)


def _multiples_of(number: int) -> Callable[[tuple[int, ...], BuildContext], str | None]:
    def refuses(shape: tuple[int, ...], ctx: BuildContext) -> str | None:
        if ctx.device.kind == "cuda" and any(side % number for side in shape):
            return f"its sides {list(shape)} are not multiples of {number}"
        return None

    return refuses


def _int8_torch(_config: QuantizerOptions, ctx: BuildContext) -> Quantizer:
    from lightx2v_core.api import CodeQuantizer
    from lightx2v_core.builtin.quant.int_mm import linear_for

    return CodeQuantizer(linear_for(ctx.device.kind))


@hookimpl
def lightx2v_quantizers() -> list[QuantizerSpec[Any]]:
    return [
        QuantizerSpec(
            name="dequant",
            summary="fp8 or int8 weights, dequantized on use: exact, on any device",
            config=DequantOptions,
            formats=_INT8 | _FP8 | _DECODED,
            makes=_dequant_makes,
            exact=True,
            build=_dequant,
        ),
        QuantizerSpec(
            name="fp8-torch",
            summary="PyTorch's fp8 matmul (_scaled_mm), activations in fp8 with one scale per token",
            config=QuantizerOptions,
            formats=_FP8,
            makes=lambda _config: "fp8-channel",
            min_capability=(8, 9),
            refuses=_multiples_of(16),
            build=_fp8_torch,
        ),
        QuantizerSpec(
            name="int8-torch",
            summary="PyTorch's int8 matmul (_int_mm), activations in int8 with one scale per token",
            config=QuantizerOptions,
            formats=_INT8,
            makes=lambda _config: "int8-channel",
            refuses=_multiples_of(8),
            build=_int8_torch,
        ),
    ]


def _resident(_config: NoOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_core.builtin.resident import Resident

    return Resident(ctx.device.torch_name)


def _sequential(_config: NoOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_core.builtin.sequential import Sequential

    return Sequential(ctx.device.torch_name)


def _one_at_a_time(_config: NoOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    from lightx2v_core.api import OffloadForecast

    weights = max((load.weights for load in loads), default=0)
    peak = max((load.weights + load.activations for load in loads), default=0)
    total = sum(load.weights for load in loads)
    return OffloadForecast(
        weights=weights,
        activations=peak - weights,
        switching=total / ctx.speeds.disk,
        detail="one component at a time, read from its files",
    )


def _merge(_config: NoOptions, _ctx: BuildContext) -> LoraApplier:
    from lightx2v_core.builtin.lora_merge import Merge

    return Merge()


@frozen(kw_only=True)
class DynamicOptions:
    """Options of the ``dynamic`` LoRA applier."""

    #: ranks are padded to a multiple of this, so that files with other ranks do not need a new compiled graph
    rank: int = field(default=64, validator=[v.ge(1), v.le(4096)])
    #: give every linear a branch from the start, so that switching never changes the graph; slightly slower per step
    reserve: bool = False


def _dynamic(config: DynamicOptions, ctx: BuildContext) -> LoraApplier:
    from lightx2v_core.builtin.lora_dynamic import Dynamic

    return Dynamic(ctx, rank=config.rank, reserve=config.reserve)


@hookimpl
def lightx2v_lora_appliers() -> list[LoraApplierSpec[Any]]:
    return [
        LoraApplierSpec(
            name="merge",
            summary="LoRA files merged into the weights, without run-time cost",
            build=_merge,
        ),
        LoraApplierSpec(
            name="dynamic",
            summary="LoRA files computed at run time: fast to switch, and lossless with quantized weights",
            config=DynamicOptions,
            build=_dynamic,
            kinds=LORA_KINDS - {"magnitude"},
            resident=True,
        ),
    ]


@hookimpl
def lightx2v_offloaders() -> list[OffloaderSpec[NoOptions]]:
    return [
        OffloaderSpec(name="none", summary="every component stays on the device", build=_resident),
        OffloaderSpec(
            name="sequential",
            summary="one component at a time, read from its files on use",
            build=_sequential,
            forecast=_one_at_a_time,
        ),
    ]


@frozen(kw_only=True)
class EulerOptions:
    """Options of the ``euler`` scheduler."""

    grid: Literal["linear", "unipc"] = field(
        default="linear",
        metadata={"help": "noise levels: linear starts at 1, unipc is the grid of the unipc scheduler"},
    )


def _unipc(_config: NoOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.unipc import FlowUniPC

    return FlowUniPC(ctx.steps, ctx.shift, ctx.start)


def _dpmpp(_config: NoOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.dpmpp import FlowDPMSolverPP

    return FlowDPMSolverPP(ctx.steps, ctx.shift, ctx.start)


def _euler(config: EulerOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.euler import FlowEuler

    return FlowEuler(ctx.steps, ctx.shift, grid=config.grid, start=ctx.start)


def _denoising_steps(_instance: object, _attribute: object, value: tuple[float, ...]) -> None:
    from lightx2v_core.builtin.schedulers.grids import training_levels

    try:
        training_levels(value)
    except ValueError as exc:
        raise ValueError(f"'denoising_steps': {exc}") from None


@frozen(kw_only=True)
class DistillOptions:
    """Options of the ``distill`` scheduler."""

    denoising_steps: tuple[float, ...] = field(
        default=(1000, 750, 500, 250),
        validator=_denoising_steps,
        metadata={"help": "training timesteps to visit, in descending order; 937.5 means 938"},
    )


def _distill(config: DistillOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_core.builtin.schedulers.distill import StepDistill

    return StepDistill(config.denoising_steps, ctx.shift, ctx.start)


def _distill_steps(config: DistillOptions) -> int:
    return len(config.denoising_steps)


@hookimpl
def lightx2v_schedulers() -> list[SchedulerSpec[Any]]:
    return [
        SchedulerSpec(
            name="unipc", summary="UniPC for flow matching, order 2; the official default", build=_unipc
        ),
        SchedulerSpec(name="dpm++", summary="DPM-Solver++ 2M for flow matching", build=_dpmpp),
        SchedulerSpec(name="euler", summary="plain Euler steps", config=EulerOptions, build=_euler),
        SchedulerSpec(
            name="distill",
            summary="the few fixed steps of distilled models, without guidance",
            config=DistillOptions,
            build=_distill,
            steps=_distill_steps,
            guided=False,
        ),
    ]
