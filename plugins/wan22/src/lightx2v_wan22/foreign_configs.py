"""The ``config.json`` of diffusers for converted weights of the VAE and the Animate network.

Torch is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightx2v_wan21.api import Shapes, dit_settings, vae_config


def vae22_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of diffusers' ``AutoencoderKLWan``, with 2x2 pixels folded into channels."""
    from lightx2v_wan22.vae22.architecture import FOLDED_CHANNELS, SPATIAL_STRIDE
    from lightx2v_wan22.vae22.network import LATENT_MEAN, LATENT_STD

    return {
        **vae_config(config, shapes),
        "is_residual": True,
        "in_channels": FOLDED_CHANNELS,
        "out_channels": FOLDED_CHANNELS,
        "patch_size": 2,
        "scale_factor_spatial": SPATIAL_STRIDE,
        "latents_mean": list(LATENT_MEAN),
        "latents_std": list(LATENT_STD),
    }


def animate_config(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Build the configuration of diffusers' ``WanAnimateTransformer3DModel``."""
    from lightx2v_wan22.animate.architecture import animate_from

    arch = animate_from(config, shapes)
    settings = dit_settings(arch.dit)
    return {
        **settings,
        "_class_name": "WanAnimateTransformer3DModel",
        "latent_channels": arch.pose_dim,
        "motion_encoder_channel_sizes": {
            str(arch.face_size >> level): channels for level, channels in enumerate(arch.motion_channels)
        },
        "motion_encoder_size": arch.face_size,
        "motion_style_dim": arch.style_dim,
        "motion_dim": arch.directions,
        "motion_encoder_dim": arch.motion_dim,
        "face_encoder_hidden_dim": arch.face_dim,
        "face_encoder_num_heads": arch.face_heads,
    }
