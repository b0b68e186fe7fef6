"""Variant, default values, tensor sizes and memory of a checkpoint, from headers alone. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from attrs import asdict
from lightx2v_core.api import (
    DTYPE_BYTES,
    CheckpointFacts,
    Defaults,
    Geometry,
    MemoryNeed,
    Recognition,
    RequestError,
    SizeRules,
    Target,
)

from lightx2v_example.shapes import (
    HEAD_DIM,
    STRIDE,
    TEXT_LENGTH,
    Sizes,
    expected_tensors,
    sizes_from,
)

if TYPE_CHECKING:
    from lightx2v_example.plugin import ModelOptions


def recognize(facts: CheckpointFacts) -> Recognition | str:
    """Recognize the variant in a folder, or return the reason why it does not belong to this family."""
    try:
        sizes = sizes_from(facts.headers["denoiser"].shapes)
    except ValueError as exc:
        return str(exc)
    tensors = expected_tensors(sizes)
    return Recognition(
        variant=f"pebble-{sizes.depth}x{sizes.width}",
        summary=f"text-to-video, {sizes.depth} blocks of width {sizes.width}",
        tasks=("t2v",),
        components=tuple(tensors),
        architecture=asdict(sizes),
        expected=tensors,
        head_dim=HEAD_DIM,
        blocks={"denoiser": sizes.blocks},
    )


def defaults(_recognition: Recognition, _task: str, size: tuple[int, int] | None) -> Defaults:
    """Return the values used unless the user sets them."""
    width, height = size or (64, 64)
    return Defaults(
        width=width,
        height=height,
        frames=9,
        fps=8,
        steps=20,
        shift=3.0,
        guide_scale=(4.0,),
        scheduler="euler",
        negative_prompt="",
    )


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Compute tensor sizes: latents [C, F, h, w], one per frame and 8 x 8 pixels.

    Raises ``RequestError`` for sides that are not divisible by 8.
    """
    problems = [
        f"{name} must be divisible by {STRIDE}: instead of {value} use {max(value // STRIDE, 1) * STRIDE} or "
        f"{(value // STRIDE + 1) * STRIDE}"
        for name, value in (("width", target.width), ("height", target.height))
        if value % STRIDE
    ]
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    rows, columns = target.height // STRIDE, target.width // STRIDE
    return Geometry(
        latent_shape=(recognition.architecture["channels"], target.frames, rows, columns),
        tokens=target.frames * rows * columns,
        width=target.width,
        height=target.height,
        frames=target.frames,
    )


def size_rules(_recognition: Recognition, _task: str) -> SizeRules:
    """Return the sizes for front ends: every multiple of a latent, any number of frames."""
    return SizeRules(presets=((64, 64), (128, 64)), step=(STRIDE, STRIDE))


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: ModelOptions
) -> Mapping[str, MemoryNeed]:
    """Forecast memory in bytes: exact for weights; activations are those of the widest layer with input and output."""
    sizes = Sizes(**recognition.architecture)
    frames = min(options.decode_frames, shape.frames)
    unit = DTYPE_BYTES[dtype]
    units = {"text_encoder": unit, "denoiser": unit, "decoder": DTYPE_BYTES["float32"]}
    values = {
        "text_encoder": TEXT_LENGTH * sizes.text_width * 3,
        "denoiser": (shape.tokens + TEXT_LENGTH) * sizes.width * 10,
        "decoder": frames * shape.width * shape.height * 3 * 3,
    }
    return {
        name: MemoryNeed(
            weights=units[name] * sum(prod(tensor) for tensor in tensors.values()),
            activations=units[name] * values[name],
        )
        for name, tensors in recognition.expected.items()
    }
