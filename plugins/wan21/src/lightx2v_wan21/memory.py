"""Memory estimates for the components of a Wan2.1 model. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from lightx2v_core.api import DTYPE_BYTES, Geometry, MemoryNeed, Recognition
from lightx2v_wan21.options import Wan21Options

#: name parts of the tensors that the network keeps in float32, see ``dit.py``
_FLOAT32 = ("modulation", "norm", "time_", "head.", "emb_pos", "img_emb.proj.0", "img_emb.proj.4")


def memory(
    recognition: Recognition, shape: Geometry, dtype: str, options: Wan21Options
) -> dict[str, MemoryNeed]:
    """Compute the bytes of weights exactly, and estimate activations from the tensors alive at each network's peak."""
    unit = DTYPE_BYTES[dtype]
    units = {"vae": DTYPE_BYTES[options.vae_dtype]}
    keep = {"dit": _FLOAT32, "image_encoder": ("norm",)}
    activations = {
        "dit": _dit,
        "text_encoder": _text_encoder,
        "image_encoder": _image_encoder,
        "vae": _vae,
        "tiny_vae": _tiny_vae,
    }
    return {
        name: MemoryNeed(
            weights=_bytes(recognition.expected[name], units.get(name, unit), keep=keep.get(name, ())),
            activations=activations[name](recognition.architecture, shape, units.get(name, unit), options),
        )
        for name in recognition.components
    }


def _dit(sizes: Mapping[str, Any], shape: Geometry, unit: int, _options: Wan21Options) -> int:
    """Estimate the bytes of all tokens; the bytes per token are counted on the network.

    The peak is in the attention (residual stream, float32 queries and keys, tensors of the compute dtype) or in the
    feed-forward network (its hidden layer before and after the activation, in addition to four float32 streams). VACE
    keeps two more float32 streams: while one branch runs, the other waits.
    """
    dit = sizes["dit"]
    dim, hidden = dit["dim"], dit["ffn_dim"]
    streams = 8 * dim if dit["vace_layers"] else 0
    wide: int = max(dim * (13 + 15 * unit // 2), dim * (16 + unit) + 2 * hidden * unit) + streams
    return shape.tokens * wide


def _text_encoder(sizes: Mapping[str, Any], _shape: Geometry, _unit: int, _options: Wan21Options) -> int:
    text, length = sizes["text_encoder"], sizes["dit"]["text_len"]
    hidden: int = length * (4 * text["dim"] + 3 * text["dim_ffn"]) * 4
    scores: int = 2 * text["num_heads"] * length**2 * 4
    return hidden + scores


def _image_encoder(sizes: Mapping[str, Any], _shape: Geometry, unit: int, _options: Wan21Options) -> int:
    clip = sizes["image_encoder"]
    side = clip["patch_size"] ** 2 * clip["num_tokens"]
    hidden: int = clip["num_tokens"] * (6 * clip["dim"] + 2 * clip["dim_mlp"]) * max(unit, 4)
    pixels: int = 3 * 3 * side * 4
    return hidden + pixels


def _vae(sizes: Mapping[str, Any], shape: Geometry, unit: int, options: Wan21Options) -> int:
    """Estimate the larger peak of decoder and encoder.

    The decoder needs about 45 frames of the widest layer at full resolution: the 4 frames being decoded, the 2 frames
    of history of every causal convolution, and the smaller stages below. The encoder, for the tasks that need it, needs
    39 frames of its own width and never tiles; its input videos are added.
    """
    vae, pixels = sizes["vae"], shape.height * shape.width
    tile = options.vae_tile
    tiled = min(shape.height, tile) * min(shape.width, tile) if tile else pixels
    decoding: int = 0 if options.tiny_vae else 45 * vae["dec_dim"] * tiled * unit
    if sizes["task"] == "t2v":
        return decoding
    videos = {"vace": 4}.get(sizes["task"], 1)  # for vace: the video, its two masked parts, and masks
    encoding: int = 39 * vae["dim"] * pixels * unit + videos * 3 * shape.frames * pixels * 4
    return max(decoding, encoding)


def _tiny_vae(sizes: Mapping[str, Any], shape: Geometry, unit: int, _options: Wan21Options) -> int:
    """Estimate the decoder's peak: eleven frames of the last stage at full resolution."""
    vae = sizes["tiny_vae"]
    wide: int = 11 * vae["dec_dims"][2] * shape.height * shape.width * unit
    return wide


def _bytes(tensors: Mapping[str, tuple[int, ...]], unit: int, keep: tuple[str, ...] = ()) -> int:
    return sum(
        prod(shape) * (4 if any(part in name for part in keep) else unit) for name, shape in tensors.items()
    )
