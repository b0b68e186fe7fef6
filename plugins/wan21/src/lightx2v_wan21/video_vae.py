"""Common base of the Wan video VAEs: clips in chunks through causal networks, and latents normalized officially.

Shape legend:
    video   [3, F, H, W] or [B, 3, F, H, W], F = 4k + 1 frames, values in [-1, 1]
    latents [C, T, h, w] or [B, C, T, h, w], T = k + 1, h = H/stride, w = W/stride, normalized per channel
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from attrs import frozen
from torch import Tensor, nn

from lightx2v_wan21.vae_layers import Past, PointConv3d
from lightx2v_wan21.vae_tiling import TEMPORAL_STRIDE, chunk_sizes, decode_tiled

#: converts pixels to the encoder's input, or the decoder's output to pixels
Fold = Callable[[Tensor], Tensor]


def _as_it_is(pixels: Tensor) -> Tensor:
    return pixels


@frozen(kw_only=True)
class LatentSpace:
    """The latents of one VAE. The statistics are not part of its checkpoint."""

    #: name of the VAE, for messages
    name: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    #: pixels for each latent pixel, in rows and columns
    stride: int
    #: frames of the official default, for messages
    frames: int

    def statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the mean and the reciprocal of the deviation, ``[C, 1, 1, 1]``.

        The reciprocal is rounded to float32 first, as in the official code.
        """
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1, 1)
        return mean, 1.0 / torch.tensor(self.deviation, device=device).view(-1, 1, 1, 1)


class VideoVae(nn.Module):
    """Encoder and decoder; ``dtype`` is that of parameters and computation, results are float32.

    Parameters are uninitialized: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(
        self,
        space: LatentSpace,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        dtype: torch.dtype,
        fold: Fold = _as_it_is,
        unfold: Fold = _as_it_is,
    ) -> None:
        """Store the networks.

        ``encoder(chunk, past)`` returns the moments of a latent frame, ``decoder(frame, past)`` the pixels of one.
        """
        super().__init__()
        self.space, self.dtype = space, dtype
        self._fold, self._unfold = fold, unfold
        channels = len(space.mean)
        self.encoder = encoder
        self.conv1 = PointConv3d(2 * channels, 2 * channels, dtype)
        self.conv2 = PointConv3d(channels, channels, dtype)
        self.decoder = decoder

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Encode a video to normalized latents (the mean of the posterior), float32, with or without batch axis.

        Raises:
            ValueError: the number of frames is not 4k + 1, or rows or columns are not multiples of the stride.
        """
        frames, rows, columns = video.shape[-3:]
        if frames % TEMPORAL_STRIDE != 1:
            raise ValueError(
                f"the video has {frames} frames; the VAE needs 4k + 1, such as 1, 5 or {self.space.frames}"
            )
        if rows % self.space.stride or columns % self.space.stride:
            raise ValueError(f"frames of {rows}x{columns} are not divisible by {self.space.stride}")
        x_BCTHW = self._fold((video if video.ndim == 5 else video[None]).to(self.dtype))
        past: Past = {}
        chunks = torch.split(x_BCTHW, chunk_sizes(frames // TEMPORAL_STRIDE + 1), dim=2)
        moments = torch.cat([self.encoder(chunk, past) for chunk in chunks], dim=2)
        mu: Tensor = self.conv1(moments).chunk(2, dim=1)[0].float()
        mean, inverse = self.space.statistics(mu.device)
        latents = (mu - mean) * inverse
        return latents if video.ndim == 5 else latents[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode latents ``[C, T, h, w]``; yields the video as float32 ``[3, n, H, W]``, n = 1, then 4 each.

        Chunks are not clamped and stay on the device of the latents.
        """
        mean, inverse = self.space.statistics(latents.device)
        z_BCTHW = self.conv2((latents.float()[None] / inverse + mean).to(self.dtype))
        past: Past = {}
        for frame in z_BCTHW.split(1, dim=2):
            yield self._unfold(self.decoder(frame, past))[0].float()

    def decode_tiled(self, latents: Tensor, *, tile: tuple[int, int], overlap: int) -> Iterator[Tensor]:
        """Decode like ``decode``, with the device memory of one tile, see ``vae_tiling.decode_tiled``."""
        return decode_tiled(self.decode, latents, tile=tile, overlap=overlap, stride=self.space.stride)
