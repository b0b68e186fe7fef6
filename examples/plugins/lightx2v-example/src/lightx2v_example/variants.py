"""What a Pebble checkpoint is, what it runs with, and what it takes: known from headers alone. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from lightx2v_core.api import (
    DTYPE_BYTES,
    CheckpointError,
    CheckpointFacts,
    Defaults,
    Geometry,
    MemoryNeed,
    Recognition,
    RequestError,
    SizeRules,
    Target,
)
from lightx2v_example.architecture import (
    HEAD_DIM,
    PATCH,
    STRIDE,
    TEXT_LENGTH,
    PebbleArchitecture,
    architecture_from,
    codec_tensors,
    denoiser_tensors,
    text_tensors,
)
from lightx2v_example.options import PebbleOptions

COMPONENTS = ("denoiser", "text", "codec")


def recognize(facts: CheckpointFacts) -> Recognition | str:
    """The variant in a folder, or why it is no Pebble model."""
    shapes = facts.headers["denoiser"].shapes
    if len(shapes.get("into.weight", ())) != 2:
        return "its network has no matrix 'into.weight', so it is no Pebble transformer"
    try:
        arch = architecture_from(shapes)
    except ValueError as exc:
        raise CheckpointError(f"{facts.folder}: {exc}") from None
    expected = {
        "denoiser": denoiser_tensors(arch),
        "text": text_tensors(arch),
        "codec": codec_tensors(arch),
    }
    return Recognition(
        variant=f"pebble-{arch.layers}x{arch.width}",
        summary=f"Pebble text-to-video, {arch.layers} layers of width {arch.width}, {arch.heads} heads",
        tasks=("t2v",),
        components=COMPONENTS,
        architecture=attrs.asdict(arch),
        expected=expected,
        head_dim=HEAD_DIM,
        blocks={"denoiser": arch.blocks},
    )


def defaults(_recognition: Recognition, _task: str, size: tuple[int, int] | None) -> Defaults:
    """64x64, 9 frames at 8 fps, 8 steps of Euler's rule."""
    width, height = size or (64, 64)
    return Defaults(
        width=width,
        height=height,
        frames=9,
        fps=8,
        steps=8,
        shift=1.0,
        guide_scale=(3.0,),
        scheduler="euler",
        negative_prompt="",
    )


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Latents [C, F, h, w]: one for each frame and 8x8 pixels. ``RequestError`` for sides that do not divide."""
    step = STRIDE * PATCH
    problems = [
        f"{name} must be divisible by {step}: instead of {value} use {max(value // step, 1) * step} or "
        f"{(value // step + 1) * step}"
        for name, value in (("width", target.width), ("height", target.height))
        if value % step
    ]
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    rows, columns = target.height // STRIDE, target.width // STRIDE
    return Geometry(
        latent_shape=(recognition.architecture["channels"], target.frames, rows, columns),
        tokens=target.frames * (rows // PATCH) * (columns // PATCH),
        width=target.width,
        height=target.height,
        frames=target.frames,
    )


def size_rules(_recognition: Recognition, _task: str) -> SizeRules:
    """What a front end may offer: every multiple of a patch, any number of frames."""
    return SizeRules(presets=((64, 64), (128, 64)), step=(STRIDE * PATCH, STRIDE * PATCH))


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: PebbleOptions
) -> Mapping[str, MemoryNeed]:
    """Weights exactly; activations: the widest layer of each network with its input and output."""
    arch, unit = PebbleArchitecture(**recognition.architecture), DTYPE_BYTES[dtype]
    frames = min(options.decode_frames, shape.frames)
    return {
        "denoiser": _need(recognition, "denoiser", unit, shape.tokens * arch.width * 12 * unit),
        "text": _need(recognition, "text", unit, TEXT_LENGTH * arch.text_width * 4 * unit),
        "codec": _need(recognition, "codec", 4, frames * shape.width * shape.height * 3 * 4 * 3),
    }


def _need(recognition: Recognition, name: str, unit: int, activations: int) -> MemoryNeed:
    tensors: Mapping[str, Any] = recognition.expected[name]
    return MemoryNeed(
        weights=unit * sum(math.prod(shape) for shape in tensors.values()), activations=activations
    )
