"""What the plans of all Wan2.2 models share. No torch here: everything is known from headers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from lightx2v_core.api import (
    DTYPE_BYTES,
    CheckpointError,
    CheckpointFacts,
    Geometry,
    MemoryNeed,
    Recognition,
    RequestError,
    SizeRules,
    Target,
)
from lightx2v_wan21.api import (
    DitArchitecture,
    Shapes,
    VaeOptions,
    clip_from,
    clip_tensors,
    frame_problems,
    image_size,
    latent_frames,
    shaped_note,
    tae_from,
    tae_tensors,
    umt5_from,
    umt5_tensors,
    vae_from,
    vae_tensors,
)
from lightx2v_wan22.vae22.architecture import vae22_from, vae22_tensors

#: parts of a tensor's name that the transformer keeps in float32, whatever the compute dtype
FLOAT32 = (
    "modulation",
    "norm",
    "time_",
    "head.",
    "emb_pos",
    "img_emb.proj.0",
    "img_emb.proj.4",
    "motion_encoder",
)
#: component -> (sizes from shapes, tensors of these sizes)
Layouts = Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]]
LAYOUTS: Layouts = {
    "text_encoder": (umt5_from, umt5_tensors),
    "image_encoder": (clip_from, clip_tensors),
    "vae": (vae_from, vae_tensors),
    "tiny_vae": (tae_from, tae_tensors),
}
LAYOUTS22: Layouts = {**LAYOUTS, "vae": (vae22_from, vae22_tensors)}
#: peak of a VAE in frames of its widest layer: (pixels along a side that count as one, decoder, encoder). Counted on
#: the networks; they hold the frames in work, two frames of history of every causal convolution, and smaller stages.
VAE21_PEAK, VAE22_PEAK = (1, 45, 45), (2, 65, 42)


def vae_components(options: VaeOptions, *, encodes: bool) -> tuple[str, ...]:
    """The VAEs a model needs: with a tiny one to decode, the full one is for those that encode."""
    if not options.tiny_vae:
        return ("vae",)
    return ("vae", "tiny_vae") if encodes else ("tiny_vae",)


def read_sizes(facts: CheckpointFacts, components: Iterable[str], layouts: Layouts) -> dict[str, Any]:
    """The sizes of the components beside the transformer that were found. ``ValueError`` when one is something else."""
    return {
        name: layouts[name][0](facts.headers[name].shapes)
        for name in components
        if name in layouts and name in facts.headers
    }


def unreadable(facts: CheckpointFacts, reason: ValueError, network: str) -> CheckpointError:
    """The error for a checkpoint whose configuration cannot be true."""
    hint = "" if facts.config else f" (there is no config.json beside the {network})"
    return CheckpointError(f"{facts.folder}: {reason}{hint}")


def check_fit(facts: CheckpointFacts, dit: DitArchitecture, sizes: Mapping[str, Any]) -> None:
    """``CheckpointError`` when another component gives what the transformer does not take."""
    wanted = {
        "text_encoder": ("dim", dit.text_dim),
        "image_encoder": ("dim", dit.image_dim),
        "vae": ("z_dim", dit.out_dim),
        "tiny_vae": ("z_dim", dit.out_dim),
    }
    for name, part in sizes.items():
        width = getattr(part, wanted[name][0])
        if width != wanted[name][1]:
            raise CheckpointError(
                f"{facts.folder}: the network has width {wanted[name][1]} for the {name.replace('_', ' ')}, and this "
                f"one has {width}; one of the two files belongs to another model"
            )


def described(sizes: Mapping[str, Any], layouts: Layouts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Expected tensors and architecture, as a ``Recognition`` holds them, of the components beside the transformer."""
    expected = {name: layouts[name][1](part) for name, part in sizes.items()}
    return expected, {name: attrs.asdict(part) for name, part in sizes.items()}


def encoder_blocks(sizes: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Prefixes of the blocks, in running order, of the components beside the transformer that have some."""
    return {name: part.blocks for name, part in sizes.items() if hasattr(part, "blocks")}


def wan_geometry(
    recognition: Recognition,
    target: Target,
    *,
    size: tuple[int, int],
    channels: int,
    stride: int,
    extra: int = 0,
    least: int = 1,
) -> Geometry:
    """Latent shape [C, T, h, w] and tokens at a (width, height), with ``extra`` latent frames in front and ``least``
    frames or more.

    Raises:
        RequestError: the frames are not 4k + 1 or the size does not divide, with the nearest values that do.
    """
    (width, height), frames = size, target.frames
    _, patch_rows, patch_columns = recognition.architecture["patch_size"]
    problems = frame_problems(frames, least=least)
    for name, value, step in (
        ("width", width, stride * patch_columns),
        ("height", height, stride * patch_rows),
    ):
        if value % step or value < step:
            lower = max(value // step * step, step)
            problems.append(
                f"{name} must be divisible by {step}: instead of {value} use {lower} or {lower + step}"
            )
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    latent = (channels, latent_frames(frames) + extra, height // stride, width // stride)
    tokens = latent[1] * (latent[2] // patch_rows) * (latent[3] // patch_columns)
    return Geometry(latent_shape=latent, tokens=tokens, width=width, height=height, frames=frames)


def shaped(
    recognition: Recognition, target: Target, shape: Callable[[tuple[int, int], int], tuple[int, int]]
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """The (width, height) of a video whose shape an image decides, if there is one, and the note of it. ``shape`` gives
    it for the size of the image and an area; a side of 0 is one that would be shorter than a patch.

    Raises:
        RequestError: no video of the area has the shape of the image.
    """
    asked = (target.width, target.height)
    if "image" not in target.inputs:
        return asked, ()
    image = image_size(target.inputs["image"], "image")
    source, size = "image {}x{}".format(*image), shape(image, asked[0] * asked[1])
    if not all(size):
        raise RequestError(
            f"{recognition.variant}: no video of {asked[0] * asked[1]} pixels can have the shape of {source}; use a "
            "larger --size, or cut the image to a shape that is less extreme"
        )
    return size, () if size == asked else (shaped_note(size, source, asked),)


def wan_sizes(
    recognition: Recognition,
    presets: tuple[tuple[int, int], ...],
    *,
    stride: int,
    least: int = 1,
    shaped_by: tuple[str, ...] = (),
) -> SizeRules:
    """What ``wan_geometry`` takes: official landscape sizes and the same turned, in multiples of the stride times the
    patch, and 4k + 1 frames."""
    _, rows, columns = recognition.architecture["patch_size"]
    return SizeRules(
        presets=tuple(size for width, height in presets for size in ((width, height), (height, width))),
        step=(stride * columns, stride * rows),
        frame_step=4,
        least_frames=least,
        shaped_by=shaped_by,
    )


def transformer_need(tensors: Shapes, dit: Mapping[str, Any], tokens: int, dtype: str) -> MemoryNeed:
    """A transformer's weights exactly, and its activations: bytes a token, counted on the network. The peak is in the
    attention (residual stream, float32 queries and keys, tensors of the compute dtype) or in the feed-forward net
    (its hidden layer before and after the activation, beside four float32 streams)."""
    unit, dim, hidden = DTYPE_BYTES[dtype], dit["dim"], dit["ffn_dim"]
    wide = max(dim * (13 + 15 * unit // 2), dim * (16 + unit) + 2 * hidden * unit)
    return MemoryNeed(weights=weight_bytes(tensors, unit, keep=FLOAT32), activations=tokens * wide)


def text_need(recognition: Recognition, dtype: str, length: int) -> MemoryNeed:
    """The umT5 encoder at its full length of text."""
    text = recognition.architecture["text_encoder"]
    scores = 2 * text["num_heads"] * length**2 * 4
    return MemoryNeed(
        weights=weight_bytes(recognition.expected["text_encoder"], DTYPE_BYTES[dtype]),
        activations=length * (4 * text["dim"] + 3 * text["dim_ffn"]) * 4 + scores,
    )


def vae_needs(
    recognition: Recognition,
    shape: Geometry,
    dtype: str,
    options: VaeOptions,
    peak: tuple[int, int, int],
    *,
    videos: int,
) -> dict[str, MemoryNeed]:
    """The VAEs of a model that encodes so many ``videos`` of its own length. Encoding never tiles."""
    fold, decoded, encoded = peak
    pixels = shape.height * shape.width
    needs = {}
    if "vae" in recognition.components:
        vae, unit = recognition.architecture["vae"], DTYPE_BYTES[options.vae_dtype]
        tile = options.vae_tile
        tiled = min(shape.height, tile) * min(shape.width, tile) if tile else pixels
        decoding = 0 if options.tiny_vae else decoded * vae["dec_dim"] * tiled // fold**2 * unit
        encoding = 0
        if videos:
            read = videos * 3 * shape.frames * pixels * 4
            encoding = encoded * vae["dim"] * pixels // fold**2 * unit + read
        weights = weight_bytes(recognition.expected["vae"], unit)
        needs["vae"] = MemoryNeed(weights=weights, activations=max(decoding, encoding))
    if "tiny_vae" in recognition.components:
        unit, tiny = DTYPE_BYTES[dtype], recognition.architecture["tiny_vae"]
        # five tensors of four frames at the resolution of its last stages
        needs["tiny_vae"] = MemoryNeed(
            weights=weight_bytes(recognition.expected["tiny_vae"], unit),
            activations=4 * 5 * tiny["dec_dims"][2] * pixels // fold**2 * unit,
        )
    return needs


def weight_bytes(tensors: Shapes, unit: int, keep: tuple[str, ...] = ()) -> int:
    """Bytes of tensors at ``unit`` bytes an element, and at four for those whose name holds a part of ``keep``."""
    return sum(
        math.prod(shape) * (4 if any(part in name for part in keep) else unit)
        for name, shape in tensors.items()
    )


def count_name(parameters: int) -> str:
    """A parameter count as a short name: 164k, 12m, 1.4b."""
    for unit, letter in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.{1 if parameters < 10 * unit else 0}f}{letter}"
    return str(parameters)
