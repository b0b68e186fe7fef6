"""Plan helpers shared by all Wan2.2 models. No torch here: plans are made from headers alone."""

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

#: name parts of the tensors that the transformer keeps in float32 at every compute dtype
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
#: peak of a VAE in frames of its widest layer: (pixels along a side that are folded into one, decoder, encoder).
#: Counted on the networks: frames in progress, two frames of history of every causal convolution, smaller stages.
VAE21_PEAK, VAE22_PEAK = (1, 45, 45), (2, 65, 42)


def vae_components(options: VaeOptions, *, encodes: bool) -> tuple[str, ...]:
    """Return the VAEs that a model needs. With a tiny VAE, only models that encode need the full one."""
    if not options.tiny_vae:
        return ("vae",)
    return ("vae", "tiny_vae") if encodes else ("tiny_vae",)


def read_sizes(facts: CheckpointFacts, components: Iterable[str], layouts: Layouts) -> dict[str, Any]:
    """Read the sizes of the available components other than the transformer. ``ValueError`` if one does not match."""
    return {
        name: layouts[name][0](facts.headers[name].shapes)
        for name in components
        if name in layouts and name in facts.headers
    }


def unreadable(facts: CheckpointFacts, reason: ValueError, network: str) -> CheckpointError:
    """Build the error for a checkpoint with a contradictory configuration."""
    hint = "" if facts.config else f" (there is no config.json next to the {network})"
    return CheckpointError(f"{facts.folder}: {reason}{hint}")


def check_fit(facts: CheckpointFacts, dit: DitArchitecture, sizes: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` if another component does not fit the transformer."""
    widths = {
        "text_encoder": ("dim", dit.text_dim),
        "image_encoder": ("dim", dit.image_dim),
        "vae": ("z_dim", dit.out_dim),
        "tiny_vae": ("z_dim", dit.out_dim),
    }
    for name, part in sizes.items():
        attribute, expected = widths[name]
        width = getattr(part, attribute)
        if width != expected:
            raise CheckpointError(
                f"{facts.folder}: the network expects width {expected} of the {name.replace('_', ' ')}, which has "
                f"{width}; one of the two files belongs to another model"
            )


def described(sizes: Mapping[str, Any], layouts: Layouts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the expected tensors and the architecture of the other components, as a ``Recognition`` has them."""
    expected = {name: layouts[name][1](part) for name, part in sizes.items()}
    return expected, {name: attrs.asdict(part) for name, part in sizes.items()}


def encoder_blocks(sizes: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the prefixes of the blocks, in execution order, of the other components that have blocks."""
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
    """Compute latent shape [C, T, h, w] and tokens at a (width, height).

    ``extra`` latent frames are added in front; ``least`` is the minimum number of frames.

    Raises:
        RequestError: the frames are not 4k + 1 or the size does not divide, with the nearest valid values.
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
    """Return the (width, height) of a video with the aspect ratio of its image, if it has one, and a note on it.

    ``shape`` computes it from the size of the image and an area; a side that would be shorter than a patch is 0.

    Raises:
        RequestError: no video of the area has the aspect ratio of the image.
    """
    asked = (target.width, target.height)
    if "image" not in target.inputs:
        return asked, ()
    image = image_size(target.inputs["image"], "image")
    source, size = "image {}x{}".format(*image), shape(image, asked[0] * asked[1])
    if not all(size):
        raise RequestError(
            f"{recognition.variant}: no video of {asked[0] * asked[1]} pixels has the aspect ratio of {source}; use a "
            "larger --size, or crop the image"
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
    """Build the rules of ``wan_geometry``.

    Official landscape sizes and the same in portrait, in multiples of the stride times the patch, and 4k + 1 frames.
    """
    _, rows, columns = recognition.architecture["patch_size"]
    return SizeRules(
        presets=tuple(size for width, height in presets for size in ((width, height), (height, width))),
        step=(stride * columns, stride * rows),
        frame_step=4,
        least_frames=least,
        shaped_by=shaped_by,
    )


def transformer_need(tensors: Shapes, dit: Mapping[str, Any], tokens: int, dtype: str) -> MemoryNeed:
    """Compute a transformer's weights exactly, and estimate its activations.

    The bytes per token are counted on the network. The peak is in the attention (residual stream, float32 queries and
    keys, tensors of the compute dtype) or in the feed-forward network (its hidden layer before and after the
    activation, in addition to four float32 streams).
    """
    unit, dim, hidden = DTYPE_BYTES[dtype], dit["dim"], dit["ffn_dim"]
    wide = max(dim * (13 + 15 * unit // 2), dim * (16 + unit) + 2 * hidden * unit)
    return MemoryNeed(weights=weight_bytes(tensors, unit, keep=FLOAT32), activations=tokens * wide)


def text_need(recognition: Recognition, dtype: str, length: int) -> MemoryNeed:
    """Estimate the need of the umT5 encoder at its full length of text."""
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
    """Estimate the needs of the VAEs of a model that encodes ``videos`` of its own length. Encoding never tiles."""
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
    """Compute the bytes of tensors at ``unit`` bytes per element; four for names that contain a part of ``keep``."""
    return sum(
        math.prod(shape) * (4 if any(part in name for part in keep) else unit)
        for name, shape in tensors.items()
    )


def count_name(parameters: int) -> str:
    """Format a parameter count as a short name: 164k, 12m, 1.4b."""
    for unit, letter in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.{1 if parameters < 10 * unit else 0}f}{letter}"
    return str(parameters)
