"""The Wan2.1 video VAE: 8x8 pixels and 4 frames (the first one alone) to one latent of 16 channels.

Parameter names are those of the official checkpoint, so a file loads without renaming.

Shape legend:
    video   [3, F, H, W] or [B, 3, F, H, W], F = 4k + 1 frames, values in [-1, 1]
    latents [C, T, h, w] or [B, C, T, h, w], T = k + 1, h = H/8, w = W/8, normalised per channel
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.architecture import VaeArchitecture, decoder_layers, encoder_layers
from lightx2v_wan21.vae_layers import CausalConv3d, Past, PointConv3d, RmsNorm, build_layer, build_middle
from lightx2v_wan21.vae_tiling import TEMPORAL_STRIDE, chunk_sizes, decode_tiled

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


class WanVae(nn.Module):
    """Encoder and decoder; ``dtype`` is that of parameters and computation, results are float32.

    Parameters come uninitialised: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: VaeArchitecture, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if arch.z_dim != len(LATENT_MEAN):
            raise ValueError(f"z_dim is {arch.z_dim}; the Wan2.1 VAE has {len(LATENT_MEAN)} latent channels")
        self.dtype = dtype
        self.encoder = Encoder(arch, dtype)
        self.conv1 = PointConv3d(2 * arch.z_dim, 2 * arch.z_dim, dtype)
        self.conv2 = PointConv3d(arch.z_dim, arch.z_dim, dtype)
        self.decoder = Decoder(arch, dtype)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Normalised latents (the mean of the posterior) of a video, float32, with or without batch axis.

        Raises:
            ValueError: the number of frames is not 4k + 1, or rows or columns are not multiples of 8.
        """
        frames, rows, columns = video.shape[-3:]
        if frames % TEMPORAL_STRIDE != 1:
            raise ValueError(f"the video has {frames} frames; the VAE takes 4k + 1, such as 1, 5 or 81")
        if rows % SPATIAL_STRIDE or columns % SPATIAL_STRIDE:
            raise ValueError(f"frames of {rows}x{columns} are not divisible by {SPATIAL_STRIDE}")
        x_BCTHW = (video if video.ndim == 5 else video[None]).to(self.dtype)
        past: Past = {}
        chunks = torch.split(x_BCTHW, chunk_sizes(frames // TEMPORAL_STRIDE + 1), dim=2)
        moments = torch.cat([self.encoder(chunk, past) for chunk in chunks], dim=2)
        mu: Tensor = self.conv1(moments).chunk(2, dim=1)[0].float()
        mean, inverse_std = _statistics(mu.device)
        latents = (mu - mean) * inverse_std
        return latents if video.ndim == 5 else latents[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the video of ``[C, T, h, w]`` latents as float32 ``[3, n, 8h, 8w]``, n = 1 then 4 each.

        Chunks are not clamped and stay on the device of the latents.
        """
        mean, inverse_std = _statistics(latents.device)
        z_BCTHW = self.conv2((latents.float()[None] / inverse_std + mean).to(self.dtype))
        past: Past = {}
        for frame in z_BCTHW.split(1, dim=2):
            yield self.decoder(frame, past)[0].float()

    def decode_tiled(self, latents: Tensor, *, tile: tuple[int, int], overlap: int) -> Iterator[Tensor]:
        """Like ``decode`` with the device memory of one tile, see ``vae_tiling.decode_tiled``."""
        return decode_tiled(self.decode, latents, tile=tile, overlap=overlap, stride=SPATIAL_STRIDE)


class Encoder(nn.Module):
    """Pixels to the moments of the latent."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(3, arch.dim, (3, 3, 3), dtype)
        self.downsamples = nn.ModuleList(build_layer(layer, dtype) for layer in encoder_layers(arch))
        self.middle = build_middle(top, dtype)
        self.head = _head(top, 2 * arch.z_dim, dtype)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """``[B, 3, 1 or 4, H, W]`` to ``[B, 2C, 1, h, w]``."""
        x = self.conv1(x_BCTHW, past)
        for layer in self.downsamples:
            x = layer(x, past)
        return _head_forward(self.head, _middle_forward(self.middle, x, past), past)


class Decoder(nn.Module):
    """One latent frame to its pixels."""

    def __init__(self, arch: VaeArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        top = arch.dec_dim * arch.multipliers[-1]
        self.conv1 = CausalConv3d(arch.z_dim, top, (3, 3, 3), dtype)
        self.middle = build_middle(top, dtype)
        self.upsamples = nn.ModuleList(build_layer(layer, dtype) for layer in decoder_layers(arch))
        self.head = _head(arch.dec_dim, 3, dtype)

    def forward(self, z_BCTHW: Tensor, past: Past) -> Tensor:
        """``[B, C, 1, h, w]`` to ``[B, 3, 1 or 4, H, W]``; 1 for the first latent of a clip."""
        x = _middle_forward(self.middle, self.conv1(z_BCTHW, past), past)
        for layer in self.upsamples:
            x = layer(x, past)
        return _head_forward(self.head, x, past)


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal of the deviation; the reciprocal is rounded to float32 first, as officially."""
    mean = torch.tensor(LATENT_MEAN, device=device).view(-1, 1, 1, 1)
    return mean, 1.0 / torch.tensor(LATENT_STD, device=device).view(-1, 1, 1, 1)


def _head(in_dim: int, out_dim: int, dtype: torch.dtype) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"0": RmsNorm(in_dim, 3, dtype), "2": CausalConv3d(in_dim, out_dim, (3, 3, 3), dtype)}
    )


def _head_forward(head: nn.ModuleDict, x: Tensor, past: Past) -> Tensor:
    out: Tensor = head["2"](F.silu(head["0"](x)), past)
    return out


def _middle_forward(middle: nn.ModuleList, x: Tensor, past: Past) -> Tensor:
    first, attention, last = middle
    out: Tensor = last(attention(first(x, past)), past)
    return out
