"""What other plugins may build on: the Wan networks, their sizes, and the prompt encoder.

Sizes and names are there at once; what needs torch is imported when it is first asked for, so that plan-time code may
import this module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightx2v_wan21.architecture import (
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    VaeLayer,
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
from lightx2v_wan21.key_maps import (
    CLIP_TRANSFORMERS,
    DIT_COMFYUI,
    DIT_DIFFUSERS,
    UMT5_TRANSFORMERS,
    VAE_DIFFUSERS,
)
from lightx2v_wan21.media_size import VideoInfo, image_size, video_info
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.prompts import NEGATIVE, NEGATIVE_FLF2V, NEGATIVE_I2V
from lightx2v_wan21.shapes import Shapes, affine, axis, count_blocks
from lightx2v_wan21.sizes import frame_problems, latent_frames, side_problems, size_for_image, size_for_video
from lightx2v_wan21.vae_architecture import vae_layer_tensors, vae_middle_tensors

if TYPE_CHECKING:
    from lightx2v_wan21.clip import ClipVision
    from lightx2v_wan21.conditioners import Conditioner, FirstAndLast, ImageEncoder, VaeEncoder
    from lightx2v_wan21.conditions import Extras, covered, folded, known_frames, letterboxed, resized
    from lightx2v_wan21.dit import WanDiT
    from lightx2v_wan21.media import Clip, Intervals, at_rate, evenly, image_tensor, open_image, open_video
    from lightx2v_wan21.pipeline import PromptEncoder, TextToVideo, block_names
    from lightx2v_wan21.rope import Rope
    from lightx2v_wan21.tae import TinyVae
    from lightx2v_wan21.tiny import random_tensors, tiny_tokenizer
    from lightx2v_wan21.tokenizer import Tokenizer
    from lightx2v_wan21.umt5 import Umt5Encoder
    from lightx2v_wan21.vae import STATISTICS, WanVae
    from lightx2v_wan21.vae_layers import CausalConv3d, Past, PointConv3d
    from lightx2v_wan21.vae_layers import RmsNorm as ChannelNorm
    from lightx2v_wan21.vae_layers import build_layer as build_vae_layer
    from lightx2v_wan21.vae_layers import build_middle as build_vae_middle
    from lightx2v_wan21.vae_tiling import chunk_sizes, decode_tiled

#: name here -> module and name of what needs torch
_LAZY = {
    "CausalConv3d": ("vae_layers", "CausalConv3d"),
    "ChannelNorm": ("vae_layers", "RmsNorm"),
    "Clip": ("media", "Clip"),
    "ClipVision": ("clip", "ClipVision"),
    "Conditioner": ("conditioners", "Conditioner"),
    "Extras": ("conditions", "Extras"),
    "FirstAndLast": ("conditioners", "FirstAndLast"),
    "ImageEncoder": ("conditioners", "ImageEncoder"),
    "Intervals": ("media", "Intervals"),
    "Past": ("vae_layers", "Past"),
    "PointConv3d": ("vae_layers", "PointConv3d"),
    "PromptEncoder": ("pipeline", "PromptEncoder"),
    "Rope": ("rope", "Rope"),
    "STATISTICS": ("vae", "STATISTICS"),
    "TextToVideo": ("pipeline", "TextToVideo"),
    "TinyVae": ("tae", "TinyVae"),
    "Tokenizer": ("tokenizer", "Tokenizer"),
    "Umt5Encoder": ("umt5", "Umt5Encoder"),
    "VaeEncoder": ("conditioners", "VaeEncoder"),
    "WanDiT": ("dit", "WanDiT"),
    "WanVae": ("vae", "WanVae"),
    "at_rate": ("media", "at_rate"),
    "block_names": ("pipeline", "block_names"),
    "build_vae_layer": ("vae_layers", "build_layer"),
    "build_vae_middle": ("vae_layers", "build_middle"),
    "covered": ("conditions", "covered"),
    "evenly": ("media", "evenly"),
    "folded": ("conditions", "folded"),
    "image_tensor": ("media", "image_tensor"),
    "known_frames": ("conditions", "known_frames"),
    "letterboxed": ("conditions", "letterboxed"),
    "open_image": ("media", "open_image"),
    "open_video": ("media", "open_video"),
    "random_tensors": ("tiny", "random_tensors"),
    "resized": ("conditions", "resized"),
    "chunk_sizes": ("vae_tiling", "chunk_sizes"),
    "decode_tiled": ("vae_tiling", "decode_tiled"),
    "tiny_tokenizer": ("tiny", "tiny_tokenizer"),
}

__all__ = [
    "CLIP_TRANSFORMERS",
    "DIT_COMFYUI",
    "DIT_DIFFUSERS",
    "NEGATIVE",
    "NEGATIVE_FLF2V",
    "NEGATIVE_I2V",
    "STATISTICS",
    "UMT5_TRANSFORMERS",
    "VAE_DIFFUSERS",
    "CausalConv3d",
    "ChannelNorm",
    "Clip",
    "ClipArchitecture",
    "ClipVision",
    "Conditioner",
    "DitArchitecture",
    "Extras",
    "FirstAndLast",
    "ImageEncoder",
    "Intervals",
    "Past",
    "PointConv3d",
    "PromptEncoder",
    "Rope",
    "Shapes",
    "TaeArchitecture",
    "TextToVideo",
    "TinyVae",
    "Tokenizer",
    "Umt5Architecture",
    "Umt5Encoder",
    "VaeArchitecture",
    "VaeEncoder",
    "VaeLayer",
    "VideoInfo",
    "Wan21Options",
    "WanDiT",
    "WanVae",
    "affine",
    "at_rate",
    "axis",
    "block_names",
    "build_vae_layer",
    "build_vae_middle",
    "chunk_sizes",
    "clip_from",
    "clip_tensors",
    "count_blocks",
    "covered",
    "decode_tiled",
    "dit_from",
    "dit_tensors",
    "evenly",
    "folded",
    "frame_problems",
    "image_size",
    "image_tensor",
    "known_frames",
    "latent_frames",
    "letterboxed",
    "open_image",
    "open_video",
    "random_tensors",
    "resized",
    "side_problems",
    "size_for_image",
    "size_for_video",
    "tae_from",
    "tae_tensors",
    "tiny_tokenizer",
    "umt5_from",
    "umt5_tensors",
    "vae_from",
    "vae_layer_tensors",
    "vae_middle_tensors",
    "vae_tensors",
    "video_info",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(f"lightx2v_wan21.{module}"), attribute)
