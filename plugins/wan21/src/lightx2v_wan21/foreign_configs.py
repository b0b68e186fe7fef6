"""The ``config.json`` of diffusers and transformers for converted weights, from the official one and tensor shapes.

Key maps refer to these functions, so listing plugins imports this module: the architecture classes are imported when a
function is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightx2v_wan21.dit_architecture import DitArchitecture
    from lightx2v_wan21.shapes import Shapes


def dit_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of diffusers' transformer.

    ``WanTransformer3DModel`` or, with VACE blocks, ``WanVACETransformer3DModel``.
    """
    from lightx2v_wan21.dit_architecture import dit_from

    return dit_settings(dit_from(config, shapes))


def dit_settings(arch: DitArchitecture) -> dict[str, Any]:
    """Build the same configuration from the sizes."""
    settings: dict[str, Any] = {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(arch.patch_size),
        "num_attention_heads": arch.num_heads,
        "attention_head_dim": arch.head_dim,
        "in_channels": arch.in_dim,
        "out_channels": arch.out_dim,
        "text_dim": arch.text_dim,
        "freq_dim": arch.freq_dim,
        "ffn_dim": arch.ffn_dim,
        "num_layers": arch.num_layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": arch.eps,
        "image_dim": arch.image_dim or None,
        "added_kv_proj_dim": arch.dim if arch.image_dim else None,
        "pos_embed_seq_len": arch.image_positions or None,
    }
    if arch.vace_layers:
        settings |= {
            "_class_name": "WanVACETransformer3DModel",
            "vace_layers": list(arch.vace_layers),
            "vace_in_channels": arch.vace_in_dim,
        }
    return settings


def umt5_config(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of ``UMT5EncoderModel`` of transformers."""
    from lightx2v_wan21.encoder_architecture import umt5_from

    arch = umt5_from(shapes)
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": arch.vocab_size,
        "d_model": arch.dim,
        "d_kv": arch.dim_attn // arch.num_heads,
        "d_ff": arch.dim_ffn,
        "num_layers": arch.num_layers,
        "num_heads": arch.num_heads,
        "relative_attention_num_buckets": arch.num_buckets,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
    }


def clip_config(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of ``CLIPVisionModel`` of transformers, counting all blocks with the unused last one."""
    from lightx2v_wan21.encoder_architecture import clip_from
    from lightx2v_wan21.shapes import count_blocks

    arch = clip_from(shapes)
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_size": arch.dim,
        "intermediate_size": arch.dim_mlp,
        "num_hidden_layers": count_blocks(shapes, "visual.transformer"),
        "num_attention_heads": arch.dim // arch.head_dim,
        "image_size": arch.side * arch.patch_size,
        "patch_size": arch.patch_size,
        "hidden_act": "gelu",
    }


def vae_config(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of ``AutoencoderKLWan`` of diffusers."""
    from lightx2v_wan21.vae import LATENT_MEAN, LATENT_STD
    from lightx2v_wan21.vae_architecture import vae_from

    arch = vae_from(shapes)
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": arch.dim,
        "decoder_base_dim": arch.dec_dim,
        "z_dim": arch.z_dim,
        "dim_mult": list(arch.multipliers),
        "num_res_blocks": arch.num_res_blocks,
        "attn_scales": [],
        "temperal_downsample": list(arch.temporal_downsample),  # their spelling
        "latents_mean": list(LATENT_MEAN),
        "latents_std": list(LATENT_STD),
    }
