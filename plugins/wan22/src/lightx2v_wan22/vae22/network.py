"""The Wan2.2 video VAE: encodes 16x16 pixels of 4 frames (the first frame alone) as one latent of 48 channels.

Parameter names are those of the official checkpoint, so a file loads without renaming. Pixels are first folded 2x2 into
channels; the rest is the Wan2.1 VAE, with shortcuts around its stages.

Shape legend:
    video   [3, F, H, W] or [B, 3, F, H, W], F = 4k + 1 frames, values in [-1, 1]
    latents [C, T, h, w] or [B, C, T, h, w], T = k + 1, h = H/16, w = W/16, normalized per channel
"""

import torch
from torch import Tensor, nn

from lightx2v_wan21.api import (
    CausalConv3d,
    LatentSpace,
    Past,
    VaeArchitecture,
    VideoVae,
    build_vae_head,
    build_vae_middle,
    through_vae_head,
    through_vae_middle,
)
from lightx2v_wan22.vae22.architecture import (
    FOLDED_CHANNELS,
    SPATIAL_STRIDE,
    decoder_stages,
    encoder_stages,
)
from lightx2v_wan22.vae22.layers import DownStage, UpStage, patchify, unpatchify

# Statistics of the official latents; they are not part of the checkpoint.
# fmt: off
LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on
STATISTICS = (LATENT_MEAN, LATENT_STD)
SPACE = LatentSpace(name="Wan2.2", mean=LATENT_MEAN, deviation=LATENT_STD, stride=SPATIAL_STRIDE, frames=121)


class Wan22Vae(VideoVae):
    """``VideoVae`` with the networks of Wan2.2, on folded pixels."""

    def __init__(self, arch: VaeArchitecture, *, dtype: torch.dtype = torch.float32) -> None:
        if arch.z_dim != len(LATENT_MEAN):
            raise ValueError(f"z_dim is {arch.z_dim}; the Wan2.2 VAE has {len(LATENT_MEAN)} latent channels")
        super().__init__(
            SPACE, Encoder(arch, dtype), Decoder(arch, dtype), dtype=dtype, fold=patchify, unfold=unpatchify
        )


class Encoder(nn.Module):
    """Encoder of folded pixels to the moments of the latent distribution."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(FOLDED_CHANNELS, arch.dim, (3, 3, 3), dtype)
        self.downsamples = nn.ModuleList(DownStage(stage, dtype) for stage in encoder_stages(arch))
        self.middle = build_vae_middle(top, dtype)
        self.head = build_vae_head(top, 2 * arch.z_dim, dtype)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Encode ``[B, 12, 1 or 4, H/2, W/2]`` to ``[B, 2C, 1, h, w]``."""
        x = self.conv1(x_BCTHW, past)
        for stage in self.downsamples:
            x = stage(x, past)
        return through_vae_head(self.head, through_vae_middle(self.middle, x, past), past)


class Decoder(nn.Module):
    """Decoder of one latent frame to folded pixels."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dec_dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(arch.z_dim, top, (3, 3, 3), dtype)
        self.middle = build_vae_middle(top, dtype)
        self.upsamples = nn.ModuleList(UpStage(stage, dtype) for stage in decoder_stages(arch))
        self.head = build_vae_head(arch.dec_dim * arch.multipliers[0], FOLDED_CHANNELS, dtype)

    def forward(self, z_BCTHW: Tensor, past: Past) -> Tensor:
        """Decode ``[B, C, 1, h, w]`` to ``[B, 12, 1 or 4, H/2, W/2]``; 1 for the first latent of a clip."""
        first = not past
        x = through_vae_middle(self.middle, self.conv1(z_BCTHW, past), past)
        for stage in self.upsamples:
            x = stage(x, past, first=first)
        return through_vae_head(self.head, x, past)
