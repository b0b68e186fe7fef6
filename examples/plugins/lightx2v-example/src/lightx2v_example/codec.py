"""The codec: each latent becomes 8x8 pixels of one frame."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightx2v_example.architecture import STRIDE, PebbleArchitecture


class Codec(nn.Module):
    """Latents to frames, in float32."""

    def __init__(self, arch: PebbleArchitecture) -> None:
        super().__init__()
        self.pixels = nn.Linear(arch.channels, 3 * STRIDE**2, dtype=torch.float32)

    def decode(self, latents_CThw: Tensor, at_once: int) -> Iterator[Tensor]:
        """Chunks of frames [3, n, X, Y] in [-1, 1]."""
        for chunk in torch.split(latents_CThw, at_once, dim=1):
            y = self.pixels(chunk.permute(1, 2, 3, 0)).unflatten(-1, (3, STRIDE, STRIDE))
            frames = y.permute(3, 0, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
            yield frames.tanh()
