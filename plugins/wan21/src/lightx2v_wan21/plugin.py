"""The hook implementations of Wan2.1. Imported at discovery, so heavy imports are inside functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.api import (
    ModelSpec,
    TaskSpec,
    hookimpl,
)
from lightx2v_wan21.components import DIT, IMAGE_ENCODER, TEXT_ENCODER, TINY_VAE, VAE
from lightx2v_wan21.options import Wan21Options

if TYPE_CHECKING:
    from lightx2v_core.api import (
        CheckpointFacts,
        Defaults,
        Geometry,
        MemoryNeed,
        ModelParts,
        Recognition,
        Repository,
        Request,
        SizeRules,
        Stage,
        Target,
        VideoModel,
    )

COMPONENTS = (DIT, TEXT_ENCODER, IMAGE_ENCODER, VAE, TINY_VAE)
TASKS = {
    "t2v": TaskSpec(),
    "i2v": TaskSpec(required=frozenset({"image"})),
    "flf2v": TaskSpec(required=frozenset({"image", "last_image"})),
    "vace": TaskSpec(optional=frozenset({"src_video", "src_mask", "ref_images"})),
}


def _recognize(facts: CheckpointFacts) -> Recognition | str:
    from lightx2v_wan21.variants import recognize

    return recognize(facts)


def _defaults(recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
    from lightx2v_wan21.variants import defaults

    return defaults(recognition, task, size)


def _with_loras(recognition: Recognition, loras: Mapping[str, Sequence[str]]) -> Recognition:
    from lightx2v_wan21.distilled import with_loras

    return with_loras(recognition, loras)


def _geometry(recognition: Recognition, target: Target) -> Geometry:
    from lightx2v_wan21.variants import geometry

    return geometry(recognition, target)


def _sizes(recognition: Recognition, task: str) -> SizeRules:
    from lightx2v_wan21.variants import size_rules

    return size_rules(recognition, task)


def _remarks(
    recognition: Recognition, request: Request, assets: Mapping[str, Mapping[str, Path]]
) -> Sequence[str]:
    from lightx2v_wan21.cut import cut_prompts

    negative = request.negative_prompt if request.guided else None
    tokenizer = assets["text_encoder"].get("tokenizer")
    return cut_prompts(request.prompt, negative, tokenizer, recognition.architecture["dit"]["text_len"])


def _stages(
    recognition: Recognition, request: Request, geometry: Geometry, options: Wan21Options
) -> Sequence[Stage]:
    from lightx2v_wan21.stages import changing_stages

    _, rows, columns = recognition.architecture["dit"]["patch_size"]
    rates, steps = options.changing_resolution_rates, options.changing_resolution_steps
    return changing_stages(recognition, request, geometry, rates, steps, (rows, columns))


def _memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: Wan21Options
) -> Mapping[str, MemoryNeed]:
    from lightx2v_wan21.memory import memory

    return memory(recognition, shape, dtype, options)


def _repositories() -> Sequence[Repository]:
    from lightx2v_wan21.repositories import REPOSITORIES

    return REPOSITORIES


def _build(options: Wan21Options, parts: ModelParts) -> VideoModel:
    from lightx2v_wan21.pipeline import build

    return build(options, parts)


def _write_tiny(folder: Path, seed: int) -> None:
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(folder, seed)


@hookimpl
def lightx2v_models() -> list[ModelSpec[Wan21Options]]:
    return [
        ModelSpec(
            name="wan2.1",
            summary="Wan2.1 t2v, i2v, flf2v and vace, 1.3B and 14B",
            config=Wan21Options,
            tasks=TASKS,
            components=COMPONENTS,
            aliases={"wan2.1_distill": True, "wan2.1_vace": None},
            recognize=_recognize,
            defaults=_defaults,
            with_loras=_with_loras,
            geometry=_geometry,
            sizes=_sizes,
            memory=_memory,
            stages=_stages,
            remarks=_remarks,
            build=_build,
            repositories=_repositories,
            write_tiny=_write_tiny,
        )
    ]
