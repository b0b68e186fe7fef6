"""What a Wan2.1 checkpoint is and what it officially runs with. Everything here is known from headers alone.

Defaults: the official generate script and configuration (Wan-Video/Wan2.1, ``wan/configs``, ``generate.py``).
"""

from __future__ import annotations

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
    Target,
)
from lightx2v_wan21.architecture import (
    DitArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    dit_from,
    dit_tensors,
    umt5_from,
    umt5_tensors,
    vae_from,
    vae_tensors,
)
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.prompts import NEGATIVE

SPATIAL_STRIDE, TEMPORAL_STRIDE = 8, 4
#: tensors that only a text-to-video Wan network and its relatives have
_SIGNATURE = ("patch_embedding.weight", "head.modulation", "blocks.0.self_attn.norm_q.weight")
#: (dim, layers) of the official networks -> name
_OFFICIAL = {(1536, 30): "1.3b", (5120, 40): "14b"}
#: parts of a tensor's name that the network keeps in float32, see ``dit.py``
_FLOAT32 = ("modulation", "norm", "time_", "head.")


def recognise(facts: CheckpointFacts) -> Recognition | str:
    """The variant in a folder, or why it is no Wan2.1 text-to-video model. ``CheckpointError`` when it is one whose
    configuration cannot be true."""
    shapes = facts.headers["dit"].shapes
    if any(name not in shapes for name in _SIGNATURE):
        lost = next(name for name in _SIGNATURE if name not in shapes)
        return f"its network has no tensor {lost!r}, so it is no Wan transformer"
    if reason := _other_task(shapes):
        return reason
    try:
        dit = dit_from(facts.config, shapes)
        text = umt5_from(facts.headers["text_encoder"].shapes) if "text_encoder" in facts.headers else None
        vae = vae_from(facts.headers["vae"].shapes) if "vae" in facts.headers else None
    except ValueError as exc:
        hint = "" if facts.config else " (there is no config.json beside the network)"
        raise CheckpointError(f"{facts.folder}: {exc}{hint}") from None
    if text is not None and text.dim != dit.text_dim:
        raise CheckpointError(
            f"{facts.folder}: the network takes text embeddings of width {dit.text_dim} and the text encoder gives "
            f"{text.dim}; one of the two files belongs to another model"
        )
    return _recognition(facts, dit, text, vae)


def _other_task(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why a Wan network is not a text-to-video one, or an empty string."""
    for name, task in (
        ("pose_patch_embedding.weight", "a Wan2.2 Animate"),
        ("vace_patch_embedding.weight", "a VACE"),
        ("img_emb.emb_pos", "a first-and-last-frame"),
        ("img_emb.proj.0.weight", "an image-to-video"),
    ):
        if name in shapes:
            return f"{task} network (it has {name!r}); this version runs text-to-video only"
    channels = shapes["patch_embedding.weight"][1]
    if channels != 16:
        return f"a network with {channels} input channels; this version runs text-to-video only, which has 16"
    return ""


def _recognition(
    facts: CheckpointFacts, dit: DitArchitecture, text: Umt5Architecture | None, vae: VaeArchitecture | None
) -> Recognition:
    expected = {"dit": dit_tensors(dit)}
    architecture: dict[str, Any] = {"dit": attrs.asdict(dit)}
    if text is not None:
        expected["text_encoder"], architecture["text_encoder"] = umt5_tensors(text), attrs.asdict(text)
    if vae is not None:
        expected["vae"], architecture["vae"] = vae_tensors(vae), attrs.asdict(vae)
    size = _OFFICIAL.get((dit.dim, dit.num_layers)) or _count(facts.headers["dit"].parameters)
    notes = []
    if size == "1.3b":
        notes.append("the model card of the 1.3B model recommends --guide-scale 6 and a --shift of 8 to 12")
    return Recognition(
        variant=f"wan2.1-t2v-{size}",
        summary=f"Wan2.1 text-to-video, {dit.num_layers} blocks of width {dit.dim}, {dit.num_heads} heads",
        tasks=("t2v",),
        components=("dit", "text_encoder", "vae"),
        architecture=architecture,
        expected=expected,
        head_dim=dit.head_dim,
        notes=tuple(notes),
    )


def defaults(recognition: Recognition, _task: str, size: tuple[int, int] | None) -> Defaults:
    """Official values: 50 steps of unipc, shift 5, guidance 5, 81 frames at 16 fps; 1280x720 for the 14B model,
    832x480 for the others."""
    width, height = size or ((1280, 720) if recognition.variant.endswith("-14b") else (832, 480))
    return Defaults(
        width=width,
        height=height,
        frames=81,
        fps=16,
        steps=50,
        shift=5.0,
        guide_scale=(5.0,),
        scheduler="unipc",
        negative_prompt=NEGATIVE,
    )


def geometry(recognition: Recognition, target: Target) -> Geometry:
    """Latent shape [16, T, h, w] and tokens. ``RequestError`` unless frames are 4k + 1 and the size divides."""
    dit, width, height, frames = recognition.architecture["dit"], target.width, target.height, target.frames
    _, patch_rows, patch_columns = dit["patch_size"]
    problems = []
    if frames % TEMPORAL_STRIDE != 1:
        lower = (frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
        problems.append(
            f"frames must be 4k + 1: instead of {frames} use {lower} or {lower + TEMPORAL_STRIDE}"
        )
    for name, value, step in (
        ("width", width, SPATIAL_STRIDE * patch_columns),
        ("height", height, SPATIAL_STRIDE * patch_rows),
    ):
        if value % step or value < step:
            lower = max(value // step * step, step)
            problems.append(
                f"{name} must be divisible by {step}: instead of {value} use {lower} or {lower + step}"
            )
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    latent = (
        dit["in_dim"],
        (frames - 1) // TEMPORAL_STRIDE + 1,
        height // SPATIAL_STRIDE,
        width // SPATIAL_STRIDE,
    )
    tokens = latent[1] * (latent[2] // patch_rows) * (latent[3] // patch_columns)
    return Geometry(latent_shape=latent, tokens=tokens, width=width, height=height, frames=frames)


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: Wan21Options
) -> dict[str, MemoryNeed]:
    """Weights exactly, activations by counting the tensors that live at the peak of each network."""
    unit, vae_unit = DTYPE_BYTES[dtype], DTYPE_BYTES[options.vae_dtype]
    weights = {
        "dit": _bytes(recognition.expected["dit"], unit, keep=_FLOAT32),
        "text_encoder": _bytes(recognition.expected["text_encoder"], unit),
        "vae": _bytes(recognition.expected["vae"], vae_unit),
    }
    dit, text = recognition.architecture["dit"], recognition.architecture["text_encoder"]
    # Bytes a token, counted on the network: residual stream, float32 queries and keys, and the tensors of the
    # compute dtype that live with them; the hidden layer of the ffn stays below that.
    wide = dit["dim"] * (13 + 15 * unit // 2)
    activations = {
        "dit": shape.tokens * wide,
        "text_encoder": dit["text_len"] * (4 * text["dim"] + 3 * text["dim_ffn"]) * 4
        + 2 * text["num_heads"] * dit["text_len"] ** 2 * 4,
        "vae": _vae_activations(recognition, shape, vae_unit, options),
    }
    return {name: MemoryNeed(weights=weights[name], activations=activations[name]) for name in weights}


def _vae_activations(recognition: Recognition, shape: Geometry, unit: int, options: Wan21Options) -> int:
    """Counted on the decoder: about 45 frames of the widest layer at full resolution, which are the 4 frames in work,
    the 2 frames of history of every causal convolution, and the smaller stages below."""
    height, width = shape.height, shape.width
    if options.vae_tile:
        height, width = min(height, options.vae_tile), min(width, options.vae_tile)
    frame: int = recognition.architecture["vae"]["dec_dim"] * height * width * unit
    return 45 * frame


def _bytes(tensors: Mapping[str, tuple[int, ...]], unit: int, keep: tuple[str, ...] = ()) -> int:
    total = 0
    for name, shape in tensors.items():
        count = 1
        for size in shape:
            count *= size
        total += count * (4 if any(part in name for part in keep) else unit)
    return total


def _count(parameters: int) -> str:
    """A parameter count as a short name: 164k, 12m, 1.4b."""
    for unit, letter in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.{1 if parameters < 10 * unit else 0}f}{letter}"
    return str(parameters)
