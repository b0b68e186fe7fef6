"""What other plugins may build on: the Wan networks, their sizes, and the prompt encoder.

Everything is imported when it is first asked for: discovery needs a few names only, and plan-time code may not import
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from lightx2v_wan21.certainty import PLAIN_CLASS, config_doubts, output_channels, says_wan21, taken
    from lightx2v_wan21.clip import ClipVision
    from lightx2v_wan21.components import ANY_FILE, DIT, IMAGE_ENCODER, TEXT_ENCODER, TINY_VAE, VAE
    from lightx2v_wan21.conditioners import Conditioner, FirstAndLast, ImageEncoder, VaeEncoder
    from lightx2v_wan21.conditions import Extras, covered, folded, known_frames, letterboxed, resized
    from lightx2v_wan21.cut import cut_prompts
    from lightx2v_wan21.distilled import (
        distilled_merged,
        distilled_name,
        distilled_note,
        distilled_steps,
        half_distilled,
        with_loras,
    )
    from lightx2v_wan21.dit import WanDiT
    from lightx2v_wan21.foreign_configs import dit_settings, vae_config
    from lightx2v_wan21.key_maps import (
        CLIP_TRANSFORMERS,
        DIT_COMFYUI,
        DIT_DIFFUSERS,
        UMT5_LLAMA,
        UMT5_TRANSFORMERS,
        VAE_DIFFUSERS,
    )
    from lightx2v_wan21.media import Clip, Intervals, at_rate, evenly, image_tensor, open_image, open_video
    from lightx2v_wan21.media_size import VideoInfo, image_size, video_info
    from lightx2v_wan21.options import Wan21Options
    from lightx2v_wan21.pipeline import PromptEncoder, TextToVideo, block_names
    from lightx2v_wan21.prompts import NEGATIVE, NEGATIVE_FLF2V, NEGATIVE_I2V
    from lightx2v_wan21.rope import Rope
    from lightx2v_wan21.shapes import Shapes, affine, axis, count_blocks, input_channels
    from lightx2v_wan21.sizes import (
        frame_problems,
        latent_frames,
        shaped_note,
        side_problems,
        size_for_image,
        size_for_video,
    )
    from lightx2v_wan21.stages import changing_stages, check_changes
    from lightx2v_wan21.tae import TinyVae
    from lightx2v_wan21.tiny import random_tensors, tiny_tokenizer
    from lightx2v_wan21.tokenizer import Tokenizer
    from lightx2v_wan21.umt5 import Umt5Encoder
    from lightx2v_wan21.vae import STATISTICS, WanVae
    from lightx2v_wan21.vae_architecture import vae_layer_tensors, vae_middle_tensors
    from lightx2v_wan21.vae_layers import CausalConv3d, Past
    from lightx2v_wan21.vae_layers import build_head as build_vae_head
    from lightx2v_wan21.vae_layers import build_layer as build_vae_layer
    from lightx2v_wan21.vae_layers import build_middle as build_vae_middle
    from lightx2v_wan21.vae_layers import through_head as through_vae_head
    from lightx2v_wan21.vae_layers import through_middle as through_vae_middle
    from lightx2v_wan21.vae_tiling import chunk_sizes
    from lightx2v_wan21.video_vae import LatentSpace, VideoVae

#: module -> what of it is public here
_HOMES = {
    "architecture": (
        "ClipArchitecture",
        "DitArchitecture",
        "TaeArchitecture",
        "Umt5Architecture",
        "VaeArchitecture",
        "VaeLayer",
        "clip_from",
        "clip_tensors",
        "dit_from",
        "dit_tensors",
        "tae_from",
        "tae_tensors",
        "umt5_from",
        "umt5_tensors",
        "vae_from",
        "vae_tensors",
    ),
    "certainty": (
        "PLAIN_CLASS",
        "config_doubts",
        "output_channels",
        "says_wan21",
        "taken",
    ),
    "clip": ("ClipVision",),
    "components": (
        "ANY_FILE",
        "DIT",
        "IMAGE_ENCODER",
        "TEXT_ENCODER",
        "TINY_VAE",
        "VAE",
    ),
    "conditioners": (
        "Conditioner",
        "FirstAndLast",
        "ImageEncoder",
        "VaeEncoder",
    ),
    "conditions": (
        "Extras",
        "covered",
        "folded",
        "known_frames",
        "letterboxed",
        "resized",
    ),
    "cut": ("cut_prompts",),
    "distilled": (
        "distilled_merged",
        "distilled_name",
        "distilled_note",
        "distilled_steps",
        "half_distilled",
        "with_loras",
    ),
    "dit": ("WanDiT",),
    "foreign_configs": ("dit_settings", "vae_config"),
    "key_maps": (
        "CLIP_TRANSFORMERS",
        "DIT_COMFYUI",
        "DIT_DIFFUSERS",
        "UMT5_LLAMA",
        "UMT5_TRANSFORMERS",
        "VAE_DIFFUSERS",
    ),
    "media": (
        "Clip",
        "Intervals",
        "at_rate",
        "evenly",
        "image_tensor",
        "open_image",
        "open_video",
    ),
    "media_size": (
        "VideoInfo",
        "image_size",
        "video_info",
    ),
    "options": ("Wan21Options",),
    "pipeline": (
        "PromptEncoder",
        "TextToVideo",
        "block_names",
    ),
    "prompts": (
        "NEGATIVE",
        "NEGATIVE_FLF2V",
        "NEGATIVE_I2V",
    ),
    "rope": ("Rope",),
    "shapes": (
        "Shapes",
        "affine",
        "axis",
        "count_blocks",
        "input_channels",
    ),
    "sizes": (
        "frame_problems",
        "latent_frames",
        "shaped_note",
        "side_problems",
        "size_for_image",
        "size_for_video",
    ),
    "stages": (
        "changing_stages",
        "check_changes",
    ),
    "tae": ("TinyVae",),
    "tiny": (
        "random_tensors",
        "tiny_tokenizer",
    ),
    "tokenizer": ("Tokenizer",),
    "umt5": ("Umt5Encoder",),
    "vae": (
        "STATISTICS",
        "WanVae",
    ),
    "vae_architecture": (
        "vae_layer_tensors",
        "vae_middle_tensors",
    ),
    "vae_layers": (
        "CausalConv3d",
        "Past",
        "build_vae_head",
        "build_vae_layer",
        "build_vae_middle",
        "through_vae_head",
        "through_vae_middle",
    ),
    "vae_tiling": ("chunk_sizes",),
    "video_vae": (
        "LatentSpace",
        "VideoVae",
    ),
}
#: names that say more here than at home
_RENAMED = {
    f"{verb}_vae_{part}": f"{verb}_{part}"
    for verb, part in (
        ("build", "head"),
        ("build", "layer"),
        ("build", "middle"),
        ("through", "head"),
        ("through", "middle"),
    )
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ANY_FILE",
    "CLIP_TRANSFORMERS",
    "DIT",
    "DIT_COMFYUI",
    "DIT_DIFFUSERS",
    "IMAGE_ENCODER",
    "NEGATIVE",
    "NEGATIVE_FLF2V",
    "NEGATIVE_I2V",
    "PLAIN_CLASS",
    "STATISTICS",
    "TEXT_ENCODER",
    "TINY_VAE",
    "UMT5_LLAMA",
    "UMT5_TRANSFORMERS",
    "VAE",
    "VAE_DIFFUSERS",
    "CausalConv3d",
    "Clip",
    "ClipArchitecture",
    "ClipVision",
    "Conditioner",
    "DitArchitecture",
    "Extras",
    "FirstAndLast",
    "ImageEncoder",
    "Intervals",
    "LatentSpace",
    "Past",
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
    "VideoVae",
    "Wan21Options",
    "WanDiT",
    "WanVae",
    "affine",
    "at_rate",
    "axis",
    "block_names",
    "build_vae_head",
    "build_vae_layer",
    "build_vae_middle",
    "changing_stages",
    "check_changes",
    "chunk_sizes",
    "clip_from",
    "clip_tensors",
    "config_doubts",
    "count_blocks",
    "covered",
    "cut_prompts",
    "distilled_merged",
    "distilled_name",
    "distilled_note",
    "distilled_steps",
    "dit_from",
    "dit_settings",
    "dit_tensors",
    "evenly",
    "folded",
    "frame_problems",
    "half_distilled",
    "image_size",
    "image_tensor",
    "input_channels",
    "known_frames",
    "latent_frames",
    "letterboxed",
    "open_image",
    "open_video",
    "output_channels",
    "random_tensors",
    "resized",
    "says_wan21",
    "shaped_note",
    "side_problems",
    "size_for_image",
    "size_for_video",
    "tae_from",
    "tae_tensors",
    "taken",
    "through_vae_head",
    "through_vae_middle",
    "tiny_tokenizer",
    "umt5_from",
    "umt5_tensors",
    "vae_config",
    "vae_from",
    "vae_layer_tensors",
    "vae_middle_tensors",
    "vae_tensors",
    "video_info",
    "with_loras",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"lightx2v_wan21.{_HOME_OF[name]}")
    return getattr(module, _RENAMED.get(name, name))
