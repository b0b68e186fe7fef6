"""The Wan2.1 video VAE: encodes 8x8 pixels of 4 frames (the first frame alone) as one latent of 16 channels.

Parameter names are those of the official checkpoint, so a file loads without renaming.

Shape legend:
    video   [3, F, H, W] or [B, 3, F, H, W], F = 4k + 1 frames, values in [-1, 1]
    latents [C, T, h, w] or [B, C, T, h, w], T = k + 1, h = H/8, w = W/8, normalized per channel
"""

import torch
from torch import Tensor, nn

from lightx2v_wan21.architecture import VaeArchitecture, decoder_layers, encoder_layers
from lightx2v_wan21.vae_layers import (
    CausalConv3d,
    Past,
    build_vae_head,
    build_vae_layer,
    build_vae_middle,
    through_vae_head,
    through_vae_middle,
)
from lightx2v_wan21.video_vae import LatentSpace, VideoVae

# Statistics of the official latents; they are not part of the checkpoint.
# fmt: off
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on

STATISTICS = (LATENT_MEAN, LATENT_STD)

SPATIAL_STRIDE = 8
SPACE = LatentSpace(name="Wan2.1", mean=LATENT_MEAN, deviation=LATENT_STD, stride=SPATIAL_STRIDE, frames=81)


class WanVae(VideoVae):
    """``VideoVae`` with the networks of Wan2.1."""

    def __init__(self, arch: VaeArchitecture, *, dtype: torch.dtype = torch.float32) -> None:
        if arch.z_dim != len(LATENT_MEAN):
            raise ValueError(f"z_dim is {arch.z_dim}; the Wan2.1 VAE has {len(LATENT_MEAN)} latent channels")
        super().__init__(SPACE, Encoder(arch, dtype), Decoder(arch, dtype), dtype=dtype)


class Encoder(nn.Module):
    """Encoder of pixels to the moments of the latent distribution."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(3, arch.dim, (3, 3, 3), dtype)
        self.downsamples = nn.ModuleList(build_vae_layer(layer, dtype) for layer in encoder_layers(arch))
        self.middle = build_vae_middle(top, dtype)
        self.head = build_vae_head(top, 2 * arch.z_dim, dtype)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Encode ``[B, 3, 1 or 4, H, W]`` to ``[B, 2C, 1, h, w]``."""
        x = self.conv1(x_BCTHW, past)
        for layer in self.downsamples:
            x = layer(x, past)
        return through_vae_head(self.head, through_vae_middle(self.middle, x, past), past)


class Decoder(nn.Module):
    """Decoder of one latent frame to pixels."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dec_dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(arch.z_dim, top, (3, 3, 3), dtype)
        self.middle = build_vae_middle(top, dtype)
        self.upsamples = nn.ModuleList(build_vae_layer(layer, dtype) for layer in decoder_layers(arch))
        self.head = build_vae_head(arch.dec_dim, 3, dtype)

    def forward(self, z_BCTHW: Tensor, past: Past) -> Tensor:
        """Decode ``[B, C, 1, h, w]`` to ``[B, 3, 1 or 4, H, W]``; 1 for the first latent of a clip."""
        x = through_vae_middle(self.middle, self.conv1(z_BCTHW, past), past)
        for layer in self.upsamples:
            x = layer(x, past)
        return through_vae_head(self.head, x, past)
