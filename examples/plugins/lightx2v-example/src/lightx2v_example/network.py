"""The networks. Parameter names are those of the files and every linear layer is an ``nn.Linear``, so that quantizers,
LoRA files and offloaders work without any code here.

Shape legend: C latent channels, T h w latent frames, rows and columns, L video tokens, S text tokens, N = L + S,
W width, X text width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from lightx2v_core.api import Attention
from torch import Tensor, nn

from lightx2v_example.shapes import HEAD_DIM, STRIDE, TEXT_LENGTH, WAVES, Sizes


class TextEncoder(nn.Module):
    """A network from the bytes of a prompt to embeddings."""

    def __init__(self, sizes: Sizes, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, sizes.text_width, dtype=dtype)
        self.neighbours = nn.Linear(sizes.text_width, sizes.text_width, dtype=dtype)

    def forward(self, prompt: str, device: str) -> Tensor:
        """Compute embeddings [S, X]; an empty prompt is a single zero byte."""
        codes = list(prompt.encode()[:TEXT_LENGTH]) or [0]
        x_SX = self.letters(torch.tensor(codes, device=device))
        # the mean of the preceding letters provides context
        count = torch.arange(1, len(codes) + 1, device=device, dtype=x_SX.dtype)[:, None]
        out: Tensor = x_SX + self.neighbours(x_SX.cumsum(dim=0) / count)
        return out


class Denoiser(nn.Module):
    """A network from latents, timestep and text to the flow velocity, with video and text tokens in one sequence."""

    def __init__(self, sizes: Sizes, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.into = nn.Linear(sizes.channels, sizes.width, dtype=dtype)
        self.text = nn.Linear(sizes.text_width, sizes.width, dtype=dtype)
        self.place = nn.Linear(3 * WAVES, sizes.width, dtype=dtype)
        self.time = nn.Linear(WAVES, sizes.width, dtype=dtype)
        self.blocks = nn.ModuleList(Block(sizes.width, attention, dtype) for _ in range(sizes.depth))
        self.out = nn.Linear(sizes.width, sizes.channels, dtype=dtype)

    def forward(self, latents_CThw: Tensor, timestep: float, text_SX: Tensor) -> Tensor:
        """Predict the velocity, float32 in the shape of the latents; the timestep is in [0, 1000]."""
        dtype, device = self.into.weight.dtype, latents_CThw.device
        x_LW = self.into(latents_CThw.flatten(1).T.to(dtype))
        x_LW = x_LW + self.place(places(latents_CThw.shape[1:], device).to(dtype))
        x_NW = torch.cat((x_LW, self.text(text_SX.to(dtype))))
        x_NW = x_NW + self.time(waves(torch.tensor([timestep], device=device)).to(dtype))
        for block in self.blocks:
            x_NW = block(x_NW)
        y_LC = self.out(normalize(x_NW[: len(x_LW)]))
        out: Tensor = y_LC.T.reshape(latents_CThw.shape).float()
        return out


class Block(nn.Module):
    """Attention over all tokens and a feed-forward network."""

    def __init__(self, width: int, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, dtype=dtype)
        self.joined = nn.Linear(width, width, dtype=dtype)
        self.up = nn.Linear(width, 4 * width, dtype=dtype)
        self.down = nn.Linear(4 * width, width, dtype=dtype)
        self._attention = attention

    def forward(self, x_NW: Tensor) -> Tensor:
        """Compute tokens of the same shape."""
        q, k, v = self.qkv(normalize(x_NW)).unflatten(-1, (3, -1, HEAD_DIM)).unbind(1)
        x_NW = x_NW + self.joined(self._attention(q[None], k[None], v[None])[0].flatten(1))
        out: Tensor = x_NW + self.down(F.gelu(self.up(normalize(x_NW))))
        return out


class Decoder(nn.Module):
    """A network from each latent to 8 x 8 pixels of one frame, in float32."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch = nn.Linear(sizes.channels, 3 * STRIDE**2, dtype=torch.float32)

    def decode(self, latents_CThw: Tensor, at_once: int) -> Iterator[Tensor]:
        """Yield chunks of frames [3, n, H, W] in [-1, 1]."""
        for chunk in torch.split(latents_CThw, at_once, dim=1):
            y = self.patch(chunk.permute(1, 2, 3, 0)).unflatten(-1, (3, STRIDE, STRIDE))
            yield y.permute(3, 0, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3).tanh()


def normalize(x_NW: Tensor) -> Tensor:
    """Apply layer norm without weights, computed in float32."""
    return F.layer_norm(x_NW.float(), x_NW.shape[-1:]).to(x_NW.dtype)


def places(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Encode frame, row and column of each token as waves, [L, 3 * WAVES]."""
    grids = torch.meshgrid(*(torch.arange(side, device=device) for side in shape), indexing="ij")
    return torch.cat([waves(grid.flatten()) for grid in grids], dim=-1)


def waves(values: Tensor) -> Tensor:
    """Compute sines and cosines of numbers at decreasing frequencies, [..., WAVES] in float32."""
    half = WAVES // 2
    frequencies = 10_000 ** (-torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = values.float()[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
