"""The transformer: patches of latents attend to each other and to the text, modulated by the timestep.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, L tokens, S text tokens, W width,
H heads, D head dim.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightx2v_core.api import Attention
from lightx2v_example.architecture import HEAD_DIM, PATCH, TIME_DIM, PebbleArchitecture


class Denoiser(nn.Module):
    """Latents, timesteps and text to the flow velocity."""

    def __init__(self, arch: PebbleArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        width, patch = arch.width, arch.channels * PATCH**2
        self.into = nn.Linear(patch, width, dtype=dtype)
        self.time = nn.Sequential(
            nn.Linear(TIME_DIM, width, dtype=dtype), nn.SiLU(), nn.Linear(width, width, dtype=dtype)
        )
        self.text = nn.Linear(arch.text_width, width, dtype=dtype)
        self.layers = nn.ModuleList(Layer(width, attention, dtype) for _ in range(arch.layers))
        self.out = Head(width, patch, dtype)

    def forward(self, latents_BCThw: Tensor, timesteps_B: Tensor, text_BSX: Tensor) -> Tensor:
        """[B, C, T, h, w], timesteps in [0, 1000] and text embeddings to velocities of the same shape, float32."""
        dtype = self.into.weight.dtype
        count, channels, frames, rows, columns = latents_BCThw.shape
        x = latents_BCThw.reshape(
            count, channels, frames, rows // PATCH, PATCH, columns // PATCH, PATCH
        ).permute(0, 2, 3, 5, 1, 4, 6)
        x_BLW = self.into(x.flatten(4).flatten(1, 3).to(dtype))
        x_BLW = x_BLW + positions(frames, rows // PATCH, columns // PATCH, x_BLW)
        time_BW = self.time(sinusoid(timesteps_B, TIME_DIM).to(dtype))
        text_BSW = self.text(text_BSX.to(dtype))
        for layer in self.layers:
            x_BLW = layer(x_BLW, time_BW, text_BSW)
        y = self.out(x_BLW, time_BW).reshape(
            count, frames, rows // PATCH, columns // PATCH, channels, PATCH, PATCH
        )
        out: Tensor = y.permute(0, 4, 1, 2, 5, 3, 6).reshape(latents_BCThw.shape).float()
        return out


class Layer(nn.Module):
    """Attention among tokens, attention to the text, and a feed-forward network."""

    def __init__(self, width: int, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(4, width, dtype=dtype))
        self.attention = SelfAttention(width, attention, dtype)
        self.cross = CrossAttention(width, attention, dtype)
        self.mlp = Mlp(width, dtype)

    def forward(self, x_BLW: Tensor, time_BW: Tensor, text_BSW: Tensor) -> Tensor:
        """Tokens of the same shape."""
        shift_1, scale_1, shift_2, scale_2 = (time_BW[:, None] + self.modulation)[:, :, None].unbind(1)
        x_BLW = x_BLW + self.attention(normed(x_BLW) * (1 + scale_1) + shift_1)
        x_BLW = x_BLW + self.cross(normed(x_BLW), text_BSW)
        out: Tensor = x_BLW + self.mlp(normed(x_BLW) * (1 + scale_2) + shift_2)
        return out


class SelfAttention(nn.Module):
    """Tokens attend to each other."""

    def __init__(self, width: int, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, dtype=dtype)
        self.out = nn.Linear(width, width, dtype=dtype)
        self._attention = attention

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Tokens of the same shape."""
        q, k, v = (heads(part) for part in self.qkv(x_BLW).chunk(3, dim=-1))
        out: Tensor = self.out(self._attention(q, k, v).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Tokens attend to the text."""

    def __init__(self, width: int, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, dtype=dtype)
        self.kv = nn.Linear(width, 2 * width, dtype=dtype)
        self.out = nn.Linear(width, width, dtype=dtype)
        self._attention = attention

    def forward(self, x_BLW: Tensor, text_BSW: Tensor) -> Tensor:
        """Tokens of the same shape."""
        k, v = (heads(part) for part in self.kv(text_BSW).chunk(2, dim=-1))
        out: Tensor = self.out(self._attention(heads(self.q(x_BLW)), k, v).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linears with a GELU between them."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, dtype=dtype)
        self.down = nn.Linear(4 * width, width, dtype=dtype)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Tokens of the same shape."""
        out: Tensor = self.down(F.gelu(self.up(x_BLW)))
        return out


class Head(nn.Module):
    """The last linear, with a modulation of its own."""

    def __init__(self, width: int, patch: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(width, patch, dtype=dtype)
        self.modulation = nn.Parameter(torch.empty(2, width, dtype=dtype))

    def forward(self, x_BLW: Tensor, time_BW: Tensor) -> Tensor:
        """Tokens to patches."""
        shift, scale = (time_BW[:, None] + self.modulation)[:, :, None].unbind(1)
        out: Tensor = self.linear(normed(x_BLW) * (1 + scale) + shift)
        return out


def heads(x_BLW: Tensor) -> Tensor:
    """[B, L, H, D]."""
    return x_BLW.reshape(*x_BLW.shape[:-1], -1, HEAD_DIM)


def normed(x_BLW: Tensor) -> Tensor:
    """Layer norm without weights, in float32."""
    return F.layer_norm(x_BLW.float(), x_BLW.shape[-1:]).to(x_BLW.dtype)


def positions(frames: int, rows: int, columns: int, like_BLW: Tensor) -> Tensor:
    """Sinusoids [L, W] of frame, row and column, summed."""
    width, device = like_BLW.shape[-1], like_BLW.device
    parts = [
        sinusoid(torch.arange(size, device=device) * factor, width)
        for size, factor in ((frames, 1.0), (rows, 17.0), (columns, 331.0))
    ]
    grid = parts[0][:, None, None] + parts[1][None, :, None] + parts[2][None, None, :]
    return grid.reshape(-1, width).to(like_BLW.dtype)


def sinusoid(values: Tensor, width: int) -> Tensor:
    """cos and sin of values at ``width / 2`` frequencies, [..., width] in float32."""
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(width // 2, device=values.device, dtype=torch.float32) / (width // 2)
    )
    angles = values.float()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
