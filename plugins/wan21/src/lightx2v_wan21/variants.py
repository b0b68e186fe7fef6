"""Recognition of Wan2.1 checkpoints and their official defaults, from headers alone.

Defaults: the official generate script and configuration (Wan-Video/Wan2.1, ``wan/configs``, ``generate.py``); for
distilled networks those of LightX2V (``configs/distill``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from lightx2v_core.api import (
    CheckpointError,
    CheckpointFacts,
    Defaults,
    Geometry,
    Recognition,
    RequestError,
    SizeRules,
    Target,
)
from lightx2v_wan21.architecture import (
    DitArchitecture,
    Shapes,
    clip_from,
    clip_tensors,
    dit_from,
    dit_tensors,
    tae_from,
    tae_tensors,
    umt5_from,
    umt5_tensors,
    vae_from,
    vae_tensors,
)
from lightx2v_wan21.certainty import (
    MASK_CHANNELS,
    config_doubts,
    expert_doubts,
    method_doubts,
    one_of_two,
    output_channels,
    taken,
)
from lightx2v_wan21.distilled import distilled_merged, distilled_name, distilled_note, distilled_steps
from lightx2v_wan21.media_size import image_size, video_info
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.prompts import NEGATIVE, NEGATIVE_FLF2V, NEGATIVE_I2V
from lightx2v_wan21.shapes import axis, count_name, input_channels
from lightx2v_wan21.sizes import (
    HD,
    SD,
    SPATIAL_STRIDE,
    SQUARE_HD,
    SQUARE_SD,
    TEMPORAL_STRIDE,
    frame_problems,
    latent_frames,
    shaped_note,
    side_problems,
    size_for_image,
    size_for_video,
    turned,
)

#: tensors that every Wan network has
_SIGNATURE = ("patch_embedding.weight", "head.modulation", "blocks.0.self_attn.norm_q.weight")
#: (dim, layers) of the official networks -> name
_OFFICIAL = {(1536, 30): "1.3b", (5120, 40): "14b"}
_TASKS = {
    "t2v": "text-to-video",
    "i2v": "image-to-video",
    "flf2v": "first-and-last-frame-to-video",
    "vace": "video creation and editing (VACE)",
}
#: components that a task needs in addition to the transformer and the VAEs
_ENCODERS = {
    "t2v": ("text_encoder",),
    "i2v": ("text_encoder", "image_encoder"),
    "flf2v": ("text_encoder", "image_encoder"),
    "vace": ("text_encoder",),
}
#: component -> (sizes from shapes, tensors of these sizes)
_LAYOUTS: Mapping[str, tuple[Any, Any]] = {
    "text_encoder": (umt5_from, umt5_tensors),
    "image_encoder": (clip_from, clip_tensors),
    "vae": (vae_from, vae_tensors),
    "tiny_vae": (tae_from, tae_tensors),
}
_HD, _SD = HD, SD
#: a size in the name of a file or folder
_SIZE = re.compile(r"(?<![0-9])(?:480|720)p(?![a-z0-9])")
#: channels of the latents, and of the VACE condition: two videos, and a mask of 8x8 pixels
LATENT_CHANNELS, VACE_CHANNELS = 16, 96
#: minimum frames of a task: flf2v needs a first and a last, and 4k + 1 in all
_LEAST_FRAMES = {"flf2v": 5}


def recognize(facts: CheckpointFacts) -> Recognition | str:
    """Recognize the variant in a folder, or explain why it is not a Wan2.1 model.

    The model's options decide whether the tiny VAE is a component. ``CheckpointError`` for a Wan2.1 model with a
    contradictory configuration.
    """
    shapes = facts.headers["dit"].shapes
    for name in _SIGNATURE:
        if name not in shapes:
            return f"its network has no tensor {name!r}, so it is not a Wan transformer"
    task, reason = _task(shapes)
    if reason or (reason := one_of_two(facts)):
        return reason
    options = facts.options or Wan21Options()
    components = _components(task, tiny=options.tiny_vae)
    try:
        dit = dit_from(facts.config, shapes)
        sizes = {
            name: sizes_from(facts.headers[name].shapes)
            for name, (sizes_from, _) in _LAYOUTS.items()
            if name in components and name in facts.headers
        }
    except ValueError as exc:
        hint = "" if facts.config else " (there is no config.json next to the network)"
        raise CheckpointError(f"{facts.folder}: {exc}{hint}") from None
    _check_fit(facts, dit, sizes)
    return _recognition(facts, task, components, dit, sizes)


def _task(shapes: Shapes) -> tuple[str, str]:
    """Return the task of a Wan network, and the reason why it is not one of Wan2.1; one of both is empty."""
    try:
        channels, outputs = input_channels(shapes), output_channels(shapes)
    except ValueError as exc:
        return "", str(exc)
    task, reason = _kind(shapes, channels)
    if reason:
        return "", reason
    image = task in ("i2v", "flf2v")
    if channels != (2 * LATENT_CHANNELS + MASK_CHANNELS if image else LATENT_CHANNELS):
        return "", (
            f"the network has {channels} input channels; {_TASKS[task]} needs {taken(LATENT_CHANNELS, image=image)}"
        )
    if outputs != LATENT_CHANNELS:
        return "", f"the network has {outputs} output channels; Wan2.1 networks have {LATENT_CHANNELS}"
    if task == "vace":
        condition = axis(shapes, "vace_patch_embedding.weight", 1, "a VACE network")
        if condition != VACE_CHANNELS:
            return (
                "",
                f"the network has {condition} channels for the VACE condition, which has {VACE_CHANNELS}",
            )
    return task, ""


def _kind(shapes: Shapes, channels: int) -> tuple[str, str]:
    """Return the task that the tensors of a Wan network imply, or the other type of network they belong to."""
    if "pose_patch_embedding.weight" in shapes:
        return "", "a Wan2.2 Animate network (it has 'pose_patch_embedding.weight')"
    if "img_emb.emb_pos" in shapes:
        return "flf2v", ""
    if "img_emb.proj.0.weight" in shapes:
        return "i2v", ""
    if channels == 2 * LATENT_CHANNELS + MASK_CHANNELS:
        return "", (
            f"a Wan2.2 image-to-video network: {channels} input channels and no 'img_emb.proj.0.weight'; it is one of "
            "two experts: set components.high_noise.path and components.low_noise.path"
        )
    if channels != LATENT_CHANNELS:
        return "", f"a network with {channels} input channels; Wan2.1 networks have 16 or 36"
    return ("vace" if "vace_patch_embedding.weight" in shapes else "t2v"), ""


def _check_fit(facts: CheckpointFacts, dit: DitArchitecture, sizes: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` if encoders or VAEs do not fit the network."""
    for name, features, width in (
        ("text_encoder", "text embeddings", dit.text_dim),
        ("image_encoder", "image features", dit.image_dim),
    ):
        if width and name in sizes and sizes[name].dim != width:
            raise CheckpointError(
                f"{facts.folder}: the network needs {features} of width {width}, the {name.replace('_', ' ')} produces "
                f"{sizes[name].dim}; one of the two files belongs to another model"
            )
    for name in ("vae", "tiny_vae"):
        if name in sizes and sizes[name].z_dim != dit.out_dim:
            raise CheckpointError(
                f"{facts.folder}: the network produces latents of {dit.out_dim} channels, the {name.replace('_', ' ')} "
                f"needs {sizes[name].z_dim}; one of the two files belongs to another model"
            )


def _components(task: str, *, tiny: bool) -> tuple[str, ...]:
    """Return the components that a task needs. With a tiny VAE, only the tasks that encode need the full one."""
    vaes = ("tiny_vae",) if task == "t2v" else ("vae", "tiny_vae")
    return ("dit", *_ENCODERS[task], *(vaes if tiny else ("vae",)))


def _recognition(
    facts: CheckpointFacts,
    task: str,
    components: tuple[str, ...],
    dit: DitArchitecture,
    sizes: Mapping[str, Any],
) -> Recognition:
    expected = {"dit": dit_tensors(dit)}
    architecture: dict[str, Any] = {"task": task, "dit": attrs.asdict(dit)}
    for name, part in sizes.items():
        expected[name], architecture[name] = _LAYOUTS[name][1](part), attrs.asdict(part)
    size = _OFFICIAL.get((dit.dim, dit.num_layers)) or count_name(facts.headers["dit"].parameters)
    architecture["official_size"] = _official_size(facts, task, size)
    telling = distilled_name(facts, "dit") or distilled_merged(facts, ["dit"])
    architecture["distilled"] = distilled_steps(telling) if telling else 0
    return Recognition(
        variant=f"wan2.1-{task}-{size}{'-distill' if telling else ''}",
        summary=f"Wan2.1 {_TASKS[task]}, {dit.num_layers} blocks of width {dit.dim}, {dit.num_heads} heads",
        tasks=(task,),
        components=components,
        architecture=architecture,
        expected=expected,
        head_dim=dit.head_dim,
        blocks={
            "dit": dit.blocks,
            **{name: part.blocks for name, part in sizes.items() if hasattr(part, "blocks")},
        },
        notes=_notes(facts, task, size, telling),
        doubts=(*config_doubts(facts.config), *method_doubts(facts), *expert_doubts(facts)),
    )


def _official_size(facts: CheckpointFacts, task: str, size: str) -> tuple[int, int]:
    """Return the official default size. For i2v names decide: 480P and 720P networks differ only in their weights."""
    if size != "14b" or (task == "i2v" and _named_size(facts) == "480p"):
        return _SD
    return _HD


def _notes(facts: CheckpointFacts, task: str, size: str, distilled: str) -> tuple[str, ...]:
    notes = _size_notes(facts, task, size, distilled)
    if not distilled:
        return notes
    ordinary = f"--scheduler unipc --steps {_steps(task)} --guide-scale 5"
    if task != "flf2v":
        ordinary += f" --shift {_shift(task, _official_size(facts, task, size)):g}"
    return (
        *notes,
        distilled_note(distilled, ordinary),
    )


def _size_notes(facts: CheckpointFacts, task: str, size: str, distilled: str) -> tuple[str, ...]:
    if task == "t2v" and size == "1.3b" and not distilled:
        return ("the model card of the 1.3B model recommends --guide-scale 6 and a --shift of 8 to 12",)
    if task == "i2v" and size == "14b" and not _named_size(facts):
        return (
            "480P and 720P networks have the same tensors, and no file or folder name tells them apart: the default "
            "size is 1280x720",
        )
    return ()


def _named_size(facts: CheckpointFacts) -> str:
    """Return ``480p`` or ``720p`` from the name of the network's file, else from the nearest folder above it.

    Empty if no name has a size, or the first one with a size has both.
    """
    file = min(info.file for info in facts.headers["dit"].tensors.values())
    inside = file.relative_to(facts.folder).parts if file.is_relative_to(facts.folder) else file.parts[-2:]
    for name in (*reversed(inside), facts.name):
        sizes = set(_SIZE.findall(name.lower()))
        if sizes:
            return sizes.pop() if len(sizes) == 1 else ""
    return ""


def defaults(recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
    """Return the official defaults.

    81 frames at 16 fps, unipc, guidance 5; 50 steps and shift 5 for t2v, 40 steps and shift 5 (3 up to 480p) for i2v,
    50 steps and shift 16 for flf2v and vace; 1280x720 for 14B, 832x480 for the others. For distilled networks: their
    own scheduler, shift 5 (16 for flf2v), no guidance.
    """
    width, height = size or recognition.architecture["official_size"]
    distilled = recognition.architecture["distilled"]
    return Defaults(
        width=width,
        height=height,
        frames=81,
        fps=16,
        steps=distilled or _steps(task),
        shift=5.0 if distilled and task != "flf2v" else _shift(task, (width, height)),
        guide_scale=(1.0,) if distilled else (5.0,),
        scheduler="distill" if distilled else "unipc",
        negative_prompt={"i2v": NEGATIVE_I2V, "flf2v": NEGATIVE_FLF2V}.get(task, NEGATIVE),
    )


def _steps(task: str) -> int:
    return 40 if task == "i2v" else 50


def _shift(task: str, size: tuple[int, int]) -> float:
    small = size[0] * size[1] <= _SD[0] * _SD[1]
    return {"t2v": 5.0, "i2v": 3.0 if small else 5.0}.get(task, 16.0)


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Compute latent shape [16, T, h, w] and tokens.

    An image or a source video determines the aspect ratio, at the area of the target. ``RequestError`` unless frames
    are 4k + 1, the size divides, and inputs can be read.
    """
    dit, inputs = recognition.architecture["dit"], target.inputs
    patch = (dit["patch_size"][1], dit["patch_size"][2])
    width, height, frames, references = target.width, target.height, target.frames, 0
    problems = frame_problems(frames, least=_LEAST_FRAMES.get(target.task, 1))
    area, source, notes = width * height, "", []
    if inputs.get("image") is not None:
        shown = image_size(inputs["image"], "image")
        source = "image {}x{}".format(*shown)
        width, height = size_for_image(*shown, area, patch)
    elif inputs.get("src_video") is not None:
        info = video_info(inputs["src_video"], "src_video")
        source = f"src_video {info.width}x{info.height}"
        available = _available(info.frames, inputs.get("src_mask"))
        width, height, fitted = size_for_video(info.width, info.height, available, area, frames, patch)
        notes += _shorter(frames, fitted, info.frames, inputs.get("src_mask")) if not problems else []
        frames = frames if problems else fitted
    elif inputs.get("src_mask") is not None:
        problems.append("src_mask needs a src_video; without both, the whole video is generated")
    if source and not (width and height):
        problems.append(f"no video of {area} pixels has the aspect ratio of {source}; use a larger --size")
    elif source and (width, height) != (target.width, target.height):
        notes.append(shaped_note((width, height), source, (target.width, target.height)))
    elif not source:
        problems += side_problems(width, height, patch)
    if inputs.get("last_image") is not None:
        image_size(inputs["last_image"], "last_image")
    if (images := inputs.get("ref_images")) is not None:
        images = images if isinstance(images, list | tuple) else (images,)
        references = len([image_size(image, "ref_images") for image in images])
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    latent = (
        dit["out_dim"],
        references + latent_frames(frames),
        height // SPATIAL_STRIDE,
        width // SPATIAL_STRIDE,
    )
    tokens = latent[1] * (latent[2] // patch[0]) * (latent[3] // patch[1])
    return Geometry(
        latent_shape=latent,
        tokens=tokens,
        width=width,
        height=height,
        frames=frames,
        lead=references,
        notes=tuple(notes),
    )


def size_rules(recognition: Recognition, task: str) -> SizeRules:
    """Return the sizes of the official script, the default one first; 4k + 1 frames.

    ``SUPPORTED_SIZES`` of Wan-Video/Wan2.1: both classes for 14B, 480p for the others. Sides are multiples of the
    stride times the patch.
    """
    _, rows, columns = recognition.architecture["dit"]["patch_size"]
    official = recognition.architecture["official_size"]
    small = (_SD, turned(_SD), SQUARE_SD)
    large = (_HD, turned(_HD), SQUARE_HD)
    presets = (*large, *small) if official == _HD else small
    return SizeRules(
        presets=presets,
        step=(SPATIAL_STRIDE * columns, SPATIAL_STRIDE * rows),
        frame_step=TEMPORAL_STRIDE,
        least_frames=_LEAST_FRAMES.get(task, 1),
        shaped_by={"t2v": (), "vace": ("src_video",)}.get(task, ("image",)),
    )


def _shorter(asked: int, frames: int, there: int, mask: Any | None) -> list[str]:
    """Return a note if a video is shorter than requested because its source is."""
    if frames == asked:
        return []
    masks = 1 if mask is None else video_info(mask, "src_mask").frames
    beside = "" if masks in (1, there) else f" and src_mask {masks}"
    return [
        f"{frames} frame{'s' * (frames > 1)} instead of {asked}: src_video has {there}{beside}, and frames must be "
        "4k + 1"
    ]


def _available(frames: int, mask: Any | None) -> int:
    """Return the number of frames of a source video that its mask covers; a mask of one frame covers all."""
    if mask is None:
        return frames
    masks = video_info(mask, "src_mask").frames
    return frames if masks == 1 else min(frames, masks)
