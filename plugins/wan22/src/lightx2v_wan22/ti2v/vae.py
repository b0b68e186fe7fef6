"""The Wan2.2 video VAE: 16x16 pixels and 4 frames (the first one alone) to one latent of 48 channels.

Parameter names are those of the official checkpoint, so a file loads without renaming. Pixels are folded 2x2 into
channels first; behind that it is the Wan2.1 VAE, with stages that carry a shortcut.

Shape legend:
    video   [3, F, H, W] or [B, 3, F, H, W], F = 4k + 1 frames, values in [-1, 1]
    latents [C, T, h, w] or [B, C, T, h, w], T = k + 1, h = H/16, w = W/16, normalised per channel
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.api import (
    CausalConv3d,
    ChannelNorm,
    Past,
    PointConv3d,
    VaeArchitecture,
    build_vae_middle,
    chunk_sizes,
    decode_tiled,
)
from lightx2v_wan22.ti2v.architecture import (
    FOLDED_CHANNELS,
    SPATIAL_STRIDE,
    TEMPORAL_STRIDE,
    decoder_stages,
    encoder_stages,
)
from lightx2v_wan22.ti2v.vae_layers import DownStage, UpStage, patchify, unpatchify

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


class Wan22Vae(nn.Module):
    """Encoder and decoder; ``dtype`` is that of parameters and computation, results are float32.

    Parameters come uninitialised: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: VaeArchitecture, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if arch.z_dim != len(LATENT_MEAN):
            raise ValueError(f"z_dim is {arch.z_dim}; the Wan2.2 VAE has {len(LATENT_MEAN)} latent channels")
        self.dtype = dtype
        self.encoder = Encoder(arch, dtype)
        self.conv1 = PointConv3d(2 * arch.z_dim, 2 * arch.z_dim, dtype)
        self.conv2 = PointConv3d(arch.z_dim, arch.z_dim, dtype)
        self.decoder = Decoder(arch, dtype)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Normalised latents (the mean of the posterior) of a video, float32, with or without batch axis.

        Raises:
            ValueError: the number of frames is not 4k + 1, or rows or columns are not multiples of 16.
        """
        frames, rows, columns = video.shape[-3:]
        if frames % TEMPORAL_STRIDE != 1:
            raise ValueError(f"the video has {frames} frames; the VAE takes 4k + 1, such as 1, 5 or 121")
        if rows % SPATIAL_STRIDE or columns % SPATIAL_STRIDE:
            raise ValueError(f"frames of {rows}x{columns} are not divisible by {SPATIAL_STRIDE}")
        x_BCTHW = patchify((video if video.ndim == 5 else video[None]).to(self.dtype))
        past: Past = {}
        chunks = torch.split(x_BCTHW, chunk_sizes(frames // TEMPORAL_STRIDE + 1), dim=2)
        moments = torch.cat([self.encoder(chunk, past) for chunk in chunks], dim=2)
        mu: Tensor = self.conv1(moments).chunk(2, dim=1)[0].float()
        mean, inverse_std = _statistics(mu.device)
        latents = (mu - mean) * inverse_std
        return latents if video.ndim == 5 else latents[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the video of ``[C, T, h, w]`` latents as float32 ``[3, n, 16h, 16w]``, n = 1 then 4 each.

        Chunks are not clamped and stay on the device of the latents.
        """
        mean, inverse_std = _statistics(latents.device)
        z_BCTHW = self.conv2((latents.float()[None] / inverse_std + mean).to(self.dtype))
        past: Past = {}
        for index, frame in enumerate(z_BCTHW.split(1, dim=2)):
            yield unpatchify(self.decoder(frame, past, first=index == 0))[0].float()

    def decode_tiled(self, latents: Tensor, *, tile: tuple[int, int], overlap: int) -> Iterator[Tensor]:
        """Like ``decode`` with the device memory of one tile; rows, columns and overlap in latent pixels."""
        return decode_tiled(self.decode, latents, tile=tile, overlap=overlap, stride=SPATIAL_STRIDE)


class Encoder(nn.Module):
    """Folded pixels to the moments of the latent."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(FOLDED_CHANNELS, arch.dim, (3, 3, 3), dtype)
        self.downsamples = nn.ModuleList(DownStage(stage, dtype) for stage in encoder_stages(arch))
        self.middle = build_vae_middle(top, dtype)
        self.head = _head(top, 2 * arch.z_dim, dtype)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """``[B, 12, 1 or 4, H/2, W/2]`` to ``[B, 2C, 1, h, w]``."""
        x = self.conv1(x_BCTHW, past)
        for stage in self.downsamples:
            x = stage(x, past)
        return _head_forward(self.head, _middle_forward(self.middle, x, past), past)


class Decoder(nn.Module):
    """One latent frame to its folded pixels."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dec_dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(arch.z_dim, top, (3, 3, 3), dtype)
        self.middle = build_vae_middle(top, dtype)
        self.upsamples = nn.ModuleList(UpStage(stage, dtype) for stage in decoder_stages(arch))
        self.head = _head(arch.dec_dim * arch.multipliers[0], FOLDED_CHANNELS, dtype)

    def forward(self, z_BCTHW: Tensor, past: Past, *, first: bool) -> Tensor:
        """``[B, C, 1, h, w]`` to ``[B, 12, 1 or 4, H/2, W/2]``; 1 for the first latent of a clip."""
        x = _middle_forward(self.middle, self.conv1(z_BCTHW, past), past)
        for stage in self.upsamples:
            x = stage(x, past, first=first)
        return _head_forward(self.head, x, past)


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal of the deviation; the reciprocal is rounded to float32 first, as officially."""
    mean = torch.tensor(LATENT_MEAN, device=device).view(-1, 1, 1, 1)
    return mean, 1.0 / torch.tensor(LATENT_STD, device=device).view(-1, 1, 1, 1)


def _head(in_dim: int, out_dim: int, dtype: torch.dtype) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"0": ChannelNorm(in_dim, 3, dtype), "2": CausalConv3d(in_dim, out_dim, (3, 3, 3), dtype)}
    )


def _head_forward(head: nn.ModuleDict, x: Tensor, past: Past) -> Tensor:
    out: Tensor = head["2"](F.silu(head["0"](x)), past)
    return out


def _middle_forward(middle: nn.ModuleList, x: Tensor, past: Past) -> Tensor:
    first, attention, last = middle
    out: Tensor = last(attention(first(x, past)), past)
    return out
