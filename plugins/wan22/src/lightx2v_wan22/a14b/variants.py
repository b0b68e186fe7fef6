"""What an A14B checkpoint is and what it officially runs with. Everything here is known from headers alone.

Defaults: the official configuration (Wan-Video/Wan2.2, ``wan/configs``); of first-and-last-frame, which has none
there, LightX2V's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from lightx2v_core.api import (
    CheckpointFacts,
    Defaults,
    Geometry,
    MemoryNeed,
    Recognition,
    SizeRules,
    Stage,
    Target,
)
from lightx2v_wan21.api import (
    NEGATIVE,
    changing_stages,
    config_doubts,
    distilled_merged,
    distilled_name,
    distilled_note,
    distilled_steps,
    dit_from,
    dit_tensors,
    half_distilled,
    input_channels,
    output_channels,
    says_wan21,
    size_for_image,
)
from lightx2v_wan22.options import A14bOptions
from lightx2v_wan22.planning import (
    LAYOUTS,
    VAE21_PEAK,
    check_fit,
    count_name,
    described,
    encoder_blocks,
    read_sizes,
    shaped,
    text_need,
    transformer_need,
    unreadable,
    vae_components,
    vae_needs,
    wan_geometry,
    wan_sizes,
)

if TYPE_CHECKING:
    from lightx2v_core.api import Request

STRIDE, LATENT_CHANNELS = 8, 16
EXPERTS = ("high_noise", "low_noise")
#: from which share of the timesteps on the high-noise expert works; with images, that is i2v and flf2v
TEXT_BOUNDARY, IMAGE_BOUNDARY = 0.875, 0.900
#: input channels of an expert -> what it does; the others are a mask (4) and the latents of images (16)
_TASKS = {16: ("t2v",), 36: ("i2v", "flf2v")}
_OTHERS = (
    ("vace_patch_embedding.weight", "a VACE"),
    ("pose_patch_embedding.weight", "an Animate"),
    ("img_emb.proj.0.weight", "a Wan2.1 image-to-video"),
)


def recognize(facts: CheckpointFacts) -> Recognition | str:
    """The variant in a folder, or why it is no A14B model. ``CheckpointError`` when it is one whose configuration
    cannot be true."""
    shapes = facts.headers["high_noise"].shapes
    for name, kind in _OTHERS:
        if name in shapes:
            return f"its experts are {kind} network (they have {name!r})"
    if "low_noise" not in facts.headers and _file(facts, "high_noise").parent.name == "transformer":
        return "it has one transformer, and A14B has two experts"
    if "low_noise" not in facts.headers and says_wan21(_file(facts, "high_noise").stem):
        return "its name says Wan2.1, which has no experts"
    try:
        channels, made = input_channels(shapes), output_channels(shapes)
    except ValueError as exc:
        return str(exc)
    if channels not in _TASKS:
        return f"its experts take {channels} channels; those of A14B take {' or '.join(map(str, _TASKS))}"
    if made != LATENT_CHANNELS:
        return f"its experts make {made} output channels; those of A14B make {LATENT_CHANNELS}"
    options = facts.options or A14bOptions()
    tasks = _TASKS[channels]
    vaes = vae_components(options, encodes=tasks != ("t2v",))
    components = (*EXPERTS, "text_encoder", *vaes)
    try:
        dit, sizes = dit_from(facts.config, shapes), read_sizes(facts, components, LAYOUTS)
    except ValueError as exc:
        raise unreadable(facts, exc, "high-noise expert") from None
    check_fit(facts, dit, sizes)
    expected, architecture = described(sizes, LAYOUTS)
    telling = distilled_name(facts, "high_noise") or distilled_merged(facts, EXPERTS)
    official = (dit.dim, dit.num_layers) == (5120, 40)
    size = "a14b" if official else count_name(facts.headers["high_noise"].parameters)
    return Recognition(
        variant=f"wan2.2-{tasks[0]}-{size}{'-distill' if telling else ''}",
        summary=f"Wan2.2 {'text' if tasks == ('t2v',) else 'image'}-to-video, two experts of {dit.num_layers} blocks "
        f"of width {dit.dim}, {dit.num_heads} heads",
        tasks=tasks,
        components=components,
        architecture={
            **architecture,
            "dit": attrs.asdict(dit),
            "patch_size": dit.patch_size,
            "distilled": distilled_steps(telling) if telling else 0,
        },
        expected={**expected, **dict.fromkeys(EXPERTS, dit_tensors(dit))},
        head_dim=dit.head_dim,
        blocks={**dict.fromkeys(EXPERTS, dit.blocks), **encoder_blocks(sizes)},
        experts=len(EXPERTS),
        notes=_notes(facts, telling, tasks),
        doubts=config_doubts(facts.config),
    )


def _file(facts: CheckpointFacts, name: str) -> Path:
    """One of the files of a component."""
    return next(iter(facts.headers[name].tensors.values())).file


def _notes(facts: CheckpointFacts, telling: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
    if not telling:
        return half_distilled(facts, EXPERTS)
    shift, scale = (12, "4,3") if tasks == ("t2v",) else (5, "3.5")
    return (distilled_note(telling, f"--scheduler unipc --steps 40 --guide-scale {scale} --shift {shift}"),)


def defaults(recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
    """Official values: 40 steps of unipc, 81 frames at 16 fps, 1280x720; shift and guidance by task. Of distilled
    experts LightX2V's: their own scheduler, shift 5 (of flf2v 16), no guidance."""
    width, height = size or (1280, 720)
    steps = recognition.architecture["distilled"]
    shift = {"t2v": 12.0, "i2v": 5.0, "flf2v": 16.0}[task]
    guide_scale = (4.0, 3.0) if task == "t2v" else (3.5, 3.5)
    return Defaults(
        width=width,
        height=height,
        frames=81,
        fps=16,
        steps=steps or 40,
        shift=min(shift, 5.0) if steps and task != "flf2v" else shift,
        guide_scale=(1.0,) if steps else guide_scale,
        scheduler="distill" if steps else "unipc",
        negative_prompt=NEGATIVE,
    )


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Latent shape [16, T, h, w] and tokens. An image keeps its aspect ratio: the size is only the area then."""
    _, rows, columns = recognition.architecture["patch_size"]
    size, notes = shaped(
        recognition, target, lambda image, area: size_for_image(*image, area, (rows, columns))
    )
    least = 5 if target.task == "flf2v" else 1  # the first and the last frame must be two
    found = wan_geometry(recognition, target, size=size, channels=LATENT_CHANNELS, stride=STRIDE, least=least)
    return attrs.evolve(found, notes=notes)


def size_rules(recognition: Recognition, task: str) -> SizeRules:
    """The sizes of the official script (``SUPPORTED_SIZES`` of Wan-Video/Wan2.2)."""
    return wan_sizes(
        recognition,
        ((1280, 720), (832, 480)),
        stride=STRIDE,
        least=5 if task == "flf2v" else 1,
        shaped_by=() if task == "t2v" else ("image",),
    )


def stages(
    recognition: Recognition, request: Request, shape: Geometry, options: A14bOptions
) -> Sequence[Stage]:
    """One size, or those of the changing resolution."""
    _, rows, columns = recognition.architecture["patch_size"]
    rates, steps = options.changing_resolution_rates, options.changing_resolution_steps
    return changing_stages(recognition, request, shape, rates, steps, (rows, columns))


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: A14bOptions
) -> Mapping[str, MemoryNeed]:
    """Both experts in full; they take turns, so the activations are those of one."""
    dit = recognition.architecture["dit"]
    expert = transformer_need(recognition.expected["high_noise"], dit, shape.tokens, dtype)
    videos = 0 if recognition.tasks == ("t2v",) else 1
    return {
        **dict.fromkeys(EXPERTS, expert),
        "text_encoder": text_need(recognition, dtype, dit["text_len"]),
        **vae_needs(recognition, shape, dtype, options, VAE21_PEAK, videos=videos),
    }
