"""The hook implementations. Imported at discovery, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.api import (
    AttentionSpec,
    BuildContext,
    ComponentSpec,
    ModelSpec,
    NoOptions,
    SchedulerSpec,
    TaskSpec,
    hookimpl,
)
from lightx2v_example.options import ChunkedOptions, PebbleOptions

if TYPE_CHECKING:
    from lightx2v_core.api import (
        Attention,
        CheckpointFacts,
        Defaults,
        Geometry,
        MemoryNeed,
        ModelParts,
        Recognition,
        Scheduler,
        SchedulerContext,
        SizeRules,
        Target,
        VideoModel,
    )

COMPONENTS = (
    ComponentSpec(
        name="denoiser",
        summary="transformer over patches of latents",
        files=("pebble-denoiser*.safetensors", "*.safetensors"),
        signature=("into.weight", "layers.0.attention.qkv.weight", "out.modulation"),
        main=True,
    ),
    ComponentSpec(
        name="text",
        summary="byte-level text encoder",
        files=("pebble-text.safetensors", "*.safetensors"),
        signature=("table.weight", "mix.weight"),
    ),
    ComponentSpec(
        name="codec",
        summary="codec from latents to frames",
        files=("pebble-codec.safetensors", "*.safetensors"),
        signature=("pixels.weight", "pixels.bias"),
    ),
)


@hookimpl
def lightx2v_models() -> list[ModelSpec[PebbleOptions]]:
    return [
        ModelSpec(
            name="pebble",
            summary="Pebble: a small text-to-video model",
            config=PebbleOptions,
            tasks={"t2v": TaskSpec()},
            components=COMPONENTS,
            recognize=_recognize,
            defaults=_defaults,
            geometry=_geometry,
            sizes=_sizes,
            memory=_memory,
            build=_build,
            write_tiny=_write_tiny,
        )
    ]


@hookimpl
def lightx2v_schedulers() -> list[SchedulerSpec[NoOptions]]:
    return [
        SchedulerSpec(
            name="adams2",
            summary="second-order Adams-Bashforth on the noise levels of flow matching",
            build=_build_scheduler,
        )
    ]


@hookimpl
def lightx2v_attention_backends() -> list[AttentionSpec[ChunkedOptions]]:
    return [
        AttentionSpec(
            name="chunked",
            summary="exact attention in chunks of queries",
            config=ChunkedOptions,
            build=_build_attention,
            # slower than the core's own, so `auto` never takes it
            priority=-1,
        )
    ]


def _recognize(facts: CheckpointFacts) -> Recognition | str:
    from lightx2v_example.variants import recognize

    return recognize(facts)


def _defaults(recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
    from lightx2v_example.variants import defaults

    return defaults(recognition, task, size)


def _geometry(recognition: Recognition, target: Target) -> Geometry:
    from lightx2v_example.variants import geometry

    return geometry(recognition, target)


def _sizes(recognition: Recognition, task: str) -> SizeRules:
    from lightx2v_example.variants import size_rules

    return size_rules(recognition, task)


def _memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: PebbleOptions
) -> Mapping[str, MemoryNeed]:
    from lightx2v_example.variants import memory

    return memory(recognition, shape, dtype, options)


def _build(options: PebbleOptions, parts: ModelParts) -> VideoModel:
    from lightx2v_example.pipeline import build

    return build(options, parts)


def _write_tiny(folder: Path, seed: int) -> None:
    from lightx2v_example.tiny import write_tiny

    write_tiny(folder, seed)


def _build_scheduler(_options: NoOptions, ctx: SchedulerContext) -> Scheduler:
    from lightx2v_example.adams import Adams2

    return Adams2(steps=ctx.steps, shift=ctx.shift, start=ctx.start)


def _build_attention(options: ChunkedOptions, _ctx: BuildContext) -> Attention:
    from lightx2v_example.chunked import Chunked

    return Chunked(options.chunk)
