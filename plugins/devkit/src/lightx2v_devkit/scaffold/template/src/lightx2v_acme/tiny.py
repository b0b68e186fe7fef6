"""A tiny checkpoint with random weights, in the model's own layout: for tests, and for everybody who wants to try."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from lightx2v_acme.shapes import Sizes, expected


def write_tiny(folder: Path, seed: int) -> None:
    """Write the three files of a model with one block of width 32."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for component, tensors in expected(Sizes(width=32, depth=1, channels=4, text_width=16)).items():
        weights = {
            name: (torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5).bfloat16()
            for name, shape in tensors.items()
        }
        save_file(weights, folder / f"acme-{component}.safetensors")
