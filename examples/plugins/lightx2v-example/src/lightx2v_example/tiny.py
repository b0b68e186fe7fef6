"""A tiny checkpoint with random weights in the layout of the model, for tests and experiments."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from lightx2v_example.shapes import Sizes, expected_tensors


def write_tiny(folder: Path, seed: int) -> None:
    """Write the three files of a model with two blocks of width 64."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for component, tensors in expected_tensors(Sizes(width=64, depth=2, channels=8, text_width=32)).items():
        weights = {
            name: (torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5).bfloat16()
            for name, shape in tensors.items()
        }
        save_file(weights, folder / f"pebble-{component}.safetensors")
