"""The implementations of this plugin. The core imports this module whenever it lists plugins, so it must be light:
packages such as torch are imported inside the functions that need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs import validators as v
from lightx2v_core.api import (
    AttentionSpec,
    BuildContext,
    CheckpointSpec,
    CommandSpec,
    ComponentSpec,
    Header,
    LoraApplierSpec,
    ModelSpec,
    NoOptions,
    OffloaderSpec,
    QuantizerSpec,
    SchedulerSpec,
    TaskSpec,
    WeightLoaderSpec,
    hookimpl,
)

if TYPE_CHECKING:
    import click
    from lightx2v_core.api import (
        Attention,
        CheckpointFacts,
        Defaults,
        Geometry,
        LoraApplier,
        MemoryNeed,
        ModelParts,
        Offloader,
        OffloadForecast,
        Quantizer,
        Recognition,
        Scheduler,
        SchedulerContext,
        SizeRules,
        Target,
        VideoModel,
        WeightSource,
        Workload,
    )


def _read_header(path: Path) -> Header:
    from lightx2v_example.archive import read_header

    return read_header(path)


def _build_weight_loader(_options: NoOptions, _ctx: BuildContext) -> Callable[[Header], WeightSource]:
    from lightx2v_example.archive import ArchiveSource

    return ArchiveSource


@hookimpl
def lightx2v_weight_loaders() -> list[WeightLoaderSpec[NoOptions]]:
    return [
        WeightLoaderSpec(
            name="pebble",
            summary=".npz archives of numpy, read member by member",
            suffixes=(".npz",),
            read_header=_read_header,
            build=_build_weight_loader,
        )
    ]


@frozen(kw_only=True)
class QuantizerOptions:
    """Options of the quantizer."""

    #: patterns of layers to leave unquantized
    keep: tuple[str, ...] = ()
    #: patterns of the only layers to quantize; empty: all
    only: tuple[str, ...] = ()
    #: rows of a weight to convert to the compute dtype at a time
    rows: int = field(default=4096, validator=v.ge(1))


def _build_quantizer(options: QuantizerOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_example.codes import RowCodes

    return RowCodes(options.rows)


def _stored_format(_options: QuantizerOptions) -> str:
    return "int8-channel"


@hookimpl
def lightx2v_quantizers() -> list[QuantizerSpec[QuantizerOptions]]:
    return [
        QuantizerSpec(
            name="pebble",
            summary="int8 weights that are never dequantized as a whole, on any device",
            config=QuantizerOptions,
            formats=frozenset({"int8-channel"}),
            makes=_stored_format,
            exact=True,
            build=_build_quantizer,
        )
    ]


@frozen(kw_only=True)
class AttentionOptions:
    """Options of the attention backend."""

    #: number of keys per chunk
    chunk: int = field(default=1024, validator=v.ge(1))


def _build_attention(options: AttentionOptions, _ctx: BuildContext) -> Attention:
    from lightx2v_example.kernel import StreamingAttention

    return StreamingAttention(options.chunk)


@hookimpl
def lightx2v_attention_backends() -> list[AttentionSpec[AttentionOptions]]:
    return [
        AttentionSpec(
            name="pebble",
            summary="exact attention in chunks of keys, with a running softmax",
            config=AttentionOptions,
            build=_build_attention,
            # below the core's own, so `auto` never selects it
            priority=-1,
        )
    ]


def _build_offloader(_options: NoOptions, ctx: BuildContext) -> Offloader:
    from lightx2v_example.store import HostStore

    return HostStore(ctx.device.torch_name)


def _forecast(_options: NoOptions, ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    """Forecast memory for `plan`: all weights on the host; on the device one block and everything outside blocks."""
    from lightx2v_core.api import OffloadForecast

    kept = [load.weights - sum(load.blocks) + max(load.blocks, default=0) for load in loads]
    moved = sum(load.passes * sum(load.blocks) for load in loads)
    return OffloadForecast(
        weights=max(kept, default=0),
        activations=max((load.activations for load in loads), default=0),
        host=sum(load.weights for load in loads),
        moved=moved,
        exposed=moved / ctx.speeds.copy,
        detail="one block at a time",
    )


@hookimpl
def lightx2v_offloaders() -> list[OffloaderSpec[NoOptions]]:
    return [
        OffloaderSpec(
            name="pebble",
            summary="weights in host memory, one block at a time on the device",
            build=_build_offloader,
            forecast=_forecast,
        )
    ]


@frozen(kw_only=True)
class LoraOptions:
    """Options of the LoRA applier."""

    #: largest total change of a tensor, as a fraction of its norm; None: no limit
    limit: float | None = field(default=None, validator=v.optional(v.gt(0)))


def _build_lora_applier(options: LoraOptions, _ctx: BuildContext) -> LoraApplier:
    from lightx2v_example.bounded import BoundedMerge

    return BoundedMerge(options.limit)


@hookimpl
def lightx2v_lora_appliers() -> list[LoraApplierSpec[LoraOptions]]:
    return [
        LoraApplierSpec(
            name="pebble",
            summary="merges LoRA files, and limits their changes",
            config=LoraOptions,
            build=_build_lora_applier,
        )
    ]


@frozen(kw_only=True)
class SchedulerOptions:
    """Options of the scheduler."""

    #: number of velocities that a step extrapolates from; 1 is Euler's method
    order: int = field(default=2, validator=[v.ge(1), v.le(3)])


def _build_scheduler(options: SchedulerOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_example.rule import Multistep

    return Multistep(steps=ctx.steps, shift=ctx.shift, start=ctx.start, order=options.order)


@hookimpl
def lightx2v_schedulers() -> list[SchedulerSpec[SchedulerOptions]]:
    return [
        SchedulerSpec(
            name="pebble",
            summary="Adams-Bashforth steps on the noise levels of flow matching",
            config=SchedulerOptions,
            build=_build_scheduler,
        )
    ]


@frozen(kw_only=True)
class ModelOptions:
    """Options of the model."""

    #: number of frames to decode at a time
    decode_frames: int = field(default=8, validator=v.ge(1))


def _components() -> tuple[ComponentSpec, ...]:
    """List the components: where their files are, and tensors that identify them.

    The core also finds shards, quantized files and folders by precision. LoRA files apply to the first component.
    """
    return (
        ComponentSpec(
            name="denoiser",
            summary="transformer over latents and text",
            files=("pebble-denoiser*.safetensors", "*.safetensors"),
            signature=("into.weight", "place.weight", "blocks.0.joined.weight"),
            main=True,
        ),
        ComponentSpec(
            name="text_encoder",
            summary="byte-level text encoder",
            files=("pebble-text_encoder*.safetensors", "*.safetensors"),
            signature=("letters.weight", "neighbours.weight"),
        ),
        ComponentSpec(
            name="decoder",
            summary="decoder from latents to frames",
            files=("pebble-decoder*.safetensors", "*.safetensors"),
            signature=("patch.weight", "patch.bias"),
        ),
    )


def _recognize(facts: CheckpointFacts) -> Recognition | str:
    from lightx2v_example.checkpoint import recognize

    return recognize(facts)


def _defaults(recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
    from lightx2v_example.checkpoint import defaults

    return defaults(recognition, task, size)


def _geometry(recognition: Recognition, target: Target) -> Geometry:
    from lightx2v_example.checkpoint import geometry

    return geometry(recognition, target)


def _sizes(recognition: Recognition, task: str) -> SizeRules:
    from lightx2v_example.checkpoint import size_rules

    return size_rules(recognition, task)


def _memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: ModelOptions
) -> Mapping[str, MemoryNeed]:
    from lightx2v_example.checkpoint import memory

    return memory(recognition, shape, dtype, options)


def _build_model(options: ModelOptions, parts: ModelParts) -> VideoModel:
    from lightx2v_example.pipeline import Pipeline

    return Pipeline(options, parts)


def _write_tiny(folder: Path, seed: int) -> None:
    from lightx2v_example.tiny import write_tiny

    write_tiny(folder, seed)


@hookimpl
def lightx2v_models() -> list[ModelSpec[ModelOptions]]:
    return [
        ModelSpec(
            name="pebble",
            summary="a small text-to-video model",
            config=ModelOptions,
            tasks={"t2v": TaskSpec()},
            components=_components(),
            recognize=_recognize,
            defaults=_defaults,
            geometry=_geometry,
            sizes=_sizes,
            memory=_memory,
            build=_build_model,
            write_tiny=_write_tiny,
        )
    ]


def _load_command() -> click.Command:
    from lightx2v_example.records import command

    return command


@hookimpl
def lightx2v_commands() -> list[CommandSpec[NoOptions]]:
    return [
        CommandSpec(
            name="pebble",
            summary="a table of the runs in a folder",
            load=_load_command,
        )
    ]


def _folder() -> Path:
    return Path(__file__).with_name("files")


@hookimpl
def lightx2v_checkpoints() -> list[CheckpointSpec[NoOptions]]:
    return [
        CheckpointSpec(
            name="pebble",
            summary="a tiny checkpoint with random weights",
            folder=_folder,
            # defaults for this checkpoint
            settings={"sampling": {"size": "64x64", "frames": 9, "steps": 8}},
        )
    ]
