"""A tiny checkpoint with random weights, in the model's own layout."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightx2v_example.architecture import PebbleArchitecture, codec_tensors, denoiser_tensors, text_tensors


def write_tiny(folder: Path, seed: int) -> None:
    """Write the three files of a model with two layers of width 64."""
    arch = PebbleArchitecture(width=64, layers=2, channels=8, text_width=32)
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (
        ("denoiser", denoiser_tensors(arch)),
        ("text", text_tensors(arch)),
        ("codec", codec_tensors(arch)),
    ):
        save_file(_random(tensors, generator), folder / f"pebble-{name}.safetensors")


def _random(tensors: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(shape, generator=generator) / (prod(shape[1:]) ** 0.5 if len(shape) > 1 else 10)
        for name, shape in tensors.items()
    }
