"""What a TI2V-5B checkpoint is and what it officially runs with. Everything here is known from headers alone.

Defaults: the official configuration (Wan-Video/Wan2.2, ``wan/configs/wan_ti2v_5B.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lightx2v_core.api import CheckpointFacts, Defaults, Geometry, MemoryNeed, Recognition, SizeRules, Target
from lightx2v_wan21.api import (
    NEGATIVE,
    config_doubts,
    distilled_merged,
    distilled_name,
    distilled_note,
    distilled_steps,
    dit_from,
    dit_tensors,
    input_channels,
    output_channels,
)
from lightx2v_wan22.options import Ti2vOptions
from lightx2v_wan22.planning import (
    LAYOUTS22,
    VAE22_PEAK,
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
from lightx2v_wan22.ti2v.architecture import LATENT_CHANNELS, SPATIAL_STRIDE


def recognize(facts: CheckpointFacts) -> Recognition | str:
    """The variant in a folder, or why it is no TI2V model. ``CheckpointError`` when it is one whose configuration
    cannot be true."""
    shapes = facts.headers["dit"].shapes
    try:
        channels, made = input_channels(shapes), output_channels(shapes)
    except ValueError as exc:
        return str(exc)
    if channels != LATENT_CHANNELS:
        return f"its network takes {channels} channels; that of TI2V takes {LATENT_CHANNELS}"
    if made != LATENT_CHANNELS:
        return f"its network makes {made} output channels; that of TI2V makes {LATENT_CHANNELS}"
    options = facts.options or Ti2vOptions()
    components = ("dit", "text_encoder", *vae_components(options, encodes=True))
    try:
        dit, sizes = dit_from(facts.config, shapes), read_sizes(facts, components, LAYOUTS22)
    except ValueError as exc:
        raise unreadable(facts, exc, "network") from None
    check_fit(facts, dit, sizes)
    expected, architecture = described(sizes, LAYOUTS22)
    telling = distilled_name(facts, "dit") or distilled_merged(facts, ["dit"])
    official = (dit.dim, dit.num_layers) == (3072, 30)
    size = "5b" if official else count_name(facts.headers["dit"].parameters)
    return Recognition(
        variant=f"wan2.2-ti2v-{size}{'-distill' if telling else ''}",
        summary=f"Wan2.2 text- and image-to-video, {dit.num_layers} blocks of width {dit.dim}, {dit.num_heads} heads",
        tasks=("t2v", "i2v"),
        components=components,
        architecture={
            **architecture,
            "dit": attrs.asdict(dit),
            "patch_size": dit.patch_size,
            "distilled": distilled_steps(telling) if telling else 0,
        },
        expected={**expected, "dit": dit_tensors(dit)},
        head_dim=dit.head_dim,
        blocks={"dit": dit.blocks, **encoder_blocks(sizes)},
        notes=(distilled_note(telling, "--scheduler unipc --steps 50 --guide-scale 5"),) if telling else (),
        doubts=config_doubts(facts.config),
    )


def defaults(recognition: Recognition, _task: str, size: tuple[int, int] | None) -> Defaults:
    """Official values: 50 steps of unipc, shift 5, guidance 5, 121 frames at 24 fps, 1280x704. Of a distilled network:
    its own scheduler, no guidance."""
    width, height = size or (1280, 704)
    steps = recognition.architecture["distilled"]
    return Defaults(
        width=width,
        height=height,
        frames=121,
        fps=24,
        steps=steps or 50,
        shift=5.0,
        guide_scale=(1.0,) if steps else (5.0,),
        scheduler="distill" if steps else "unipc",
        negative_prompt=NEGATIVE,
    )


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Latent shape [48, T, h, w] and tokens. An image keeps its aspect ratio: the size is only the area then."""
    step = SPATIAL_STRIDE * recognition.architecture["patch_size"][1]
    size, notes = shaped(recognition, target, lambda image, area: best_size(image, area, step))
    found = wan_geometry(recognition, target, size=size, channels=LATENT_CHANNELS, stride=SPATIAL_STRIDE)
    return attrs.evolve(found, notes=notes)


def size_rules(recognition: Recognition, task: str) -> SizeRules:
    """The size of the official script (``SUPPORTED_SIZES`` of Wan-Video/Wan2.2)."""
    shaped_by = () if task == "t2v" else ("image",)
    return wan_sizes(recognition, ((1280, 704),), stride=SPATIAL_STRIDE, shaped_by=shaped_by)


def best_size(image: tuple[int, int], area: int, step: int) -> tuple[int, int]:
    """The (width, height) in multiples of ``step``, of at most ``area`` pixels, whose aspect is nearest to that of the
    image: of rounding the width down first, and rounding the height down first, the better one. (0, 0) when a side
    would be shorter than ``step``: to make it as long would be many times the area.

    Official: ``best_output_size``.
    """
    ratio = image[0] / image[1]
    wide = (area * ratio) ** 0.5
    width, height = int(wide // step) * step, int(area / wide // step) * step
    if not (width and height):
        return 0, 0
    by_width = (width, int(area / width // step) * step)
    by_height = (int(area / height // step) * step, height)

    def distortion(size: tuple[int, int]) -> float:
        other = size[0] / size[1]
        return max(ratio / other, other / ratio)

    return by_width if distortion(by_width) < distortion(by_height) else by_height


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: Ti2vOptions
) -> Mapping[str, MemoryNeed]:
    """Weights exactly, activations by counting the tensors that live at the peak of each network."""
    dit = recognition.architecture["dit"]
    return {
        "dit": transformer_need(recognition.expected["dit"], dit, shape.tokens, dtype),
        "text_encoder": text_need(recognition, dtype, dit["text_len"]),
        # The image is a single frame: encoding it stays below decoding.
        **vae_needs(recognition, shape, dtype, options, VAE22_PEAK, videos=0),
    }
