"""Layers of the Wan2.2 VAE that the Wan2.1 VAE does not have: stages with a parameter-free shortcut.

Shape legend: B batch, C channels, T frames of the chunk, H W rows and columns.

All layers inside a stage are the Wan2.1 layers of the same name. Stages are stateless like those: the frames that they
remember between two chunks of a clip are in a ``Past`` that the caller passes to every layer.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.api import Past, VaeLayer, build_vae_layer


class DownStage(nn.Module):
    """Layers of one resolution and a last one that halves it, with a shortcut that averages."""

    def __init__(self, layers: Iterable[VaeLayer], dtype: torch.dtype) -> None:
        super().__init__()
        layers = tuple(layers)
        self.factors = _factors(layers[-1])
        self.out_dim = layers[-1].out_dim
        self.downsamples = nn.ModuleList(build_vae_layer(layer, dtype) for layer in layers)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Downsample ``[B, in, T, H, W]`` to ``[B, out, T', H', W']``."""
        shortcut = average_down(x_BCTHW, self.out_dim, *self.factors)
        for layer in self.downsamples:
            x_BCTHW = layer(x_BCTHW, past)
        return x_BCTHW + shortcut


class UpStage(nn.Module):
    """Layers of one resolution and a last one that doubles it, with a shortcut that repeats.

    The last stage of a decoder does not change the resolution and has no shortcut.
    """

    def __init__(self, layers: Iterable[VaeLayer], dtype: torch.dtype) -> None:
        super().__init__()
        layers = tuple(layers)
        self.factors = _factors(layers[-1])
        self.out_dim = layers[-1].out_dim
        self.upsamples = nn.ModuleList(build_vae_layer(layer, dtype) for layer in layers)

    def forward(self, x_BCTHW: Tensor, past: Past, *, first: bool) -> Tensor:
        """Upsample ``[B, in, T, H, W]`` to ``[B, out, T', H', W']``; ``first`` marks the first chunk of a clip."""
        start = x_BCTHW
        for layer in self.upsamples:
            x_BCTHW = layer(x_BCTHW, past)
        if self.factors == (1, 1):
            return x_BCTHW
        shortcut = duplicate_up(start, self.out_dim, *self.factors)
        # The first latent frame becomes one frame, not two: the last of its copies is used.
        return x_BCTHW + (shortcut[:, :, -x_BCTHW.shape[2] :] if first else shortcut)


def average_down(x_BCTHW: Tensor, out_dim: int, factor_t: int, factor_s: int) -> Tensor:
    """Fold ``factor_t`` frames and ``factor_s`` x ``factor_s`` pixels into channels, then average neighbours.

    The result has ``out_dim`` channels. A chunk with too few frames gets zeros in front.
    """
    x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, -x_BCTHW.shape[2] % factor_t, 0))
    b, c, t, h, w = x_BCTHW.shape
    t, h, w = t // factor_t, h // factor_s, w // factor_s
    cells = x_BCTHW.reshape(b, c, t, factor_t, h, factor_s, w, factor_s).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cells.reshape(b, out_dim, -1, t, h, w).mean(dim=2)


def duplicate_up(x_BCTHW: Tensor, out_dim: int, factor_t: int, factor_s: int) -> Tensor:
    """Repeat channels, then unfold them into ``factor_t`` frames and ``factor_s`` x ``factor_s`` pixels."""
    b, c, t, h, w = x_BCTHW.shape
    repeats = out_dim * factor_t * factor_s**2 // c
    cells = x_BCTHW.repeat_interleave(repeats, dim=1).view(b, out_dim, factor_t, factor_s, factor_s, t, h, w)
    cells = cells.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return cells.reshape(b, out_dim, t * factor_t, h * factor_s, w * factor_s)


def patchify(video: Tensor) -> Tensor:
    """Fold ``[B, C, T, 2H, 2W]`` to ``[B, 4C, T, H, W]``; of the 4 channels of a 2x2 block, columns vary slowest."""
    b, c, t, h, w = video.shape
    cells = video.reshape(b, c, t, h // 2, 2, w // 2, 2).permute(0, 1, 6, 4, 2, 3, 5)
    return cells.reshape(b, 4 * c, t, h // 2, w // 2)


def unpatchify(x: Tensor) -> Tensor:
    """Invert ``patchify``."""
    b, c, t, h, w = x.shape
    cells = x.view(b, c // 4, 2, 2, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return cells.reshape(b, c // 4, t, 2 * h, 2 * w)


def _factors(last: VaeLayer) -> tuple[int, int]:
    """Return the factors by which a stage with this last layer changes frames, and rows and columns."""
    return (2 if last.temporal else 1, 1 if last.kind == "residual" else 2)
