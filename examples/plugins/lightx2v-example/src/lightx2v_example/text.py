"""The text encoder: an embedding of each byte of the prompt, and one layer on top."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightx2v_example.architecture import TEXT_LENGTH, PebbleArchitecture
from lightx2v_example.denoiser import sinusoid


class TextEncoder(nn.Module):
    """Bytes to embeddings."""

    def __init__(self, arch: PebbleArchitecture, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Embedding(256, arch.text_width, dtype=dtype)
        self.mix = nn.Linear(arch.text_width, arch.text_width, dtype=dtype)

    def forward(self, prompt: str, device: str) -> Tensor:
        """A prompt to [S, X]; an empty one is a single zero byte."""
        data = list(prompt.encode()[:TEXT_LENGTH]) or [0]
        ids = torch.tensor(data, device=device)
        x = self.table(ids)
        x = x + sinusoid(torch.arange(len(data), device=device), x.shape[-1]).to(x.dtype)
        out: Tensor = x + F.gelu(self.mix(x))
        return out
