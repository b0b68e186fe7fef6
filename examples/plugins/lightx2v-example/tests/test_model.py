"""The contract of models on the tiny checkpoint, and features of the core with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightx2v_core import load
from lightx2v_core.testing.contracts import ModelContract

from lightx2v_example.tiny import write_tiny


class TestModel(ModelContract):
    use = "pebble"


def latents(folder: Path, **config: Any) -> torch.Tensor:
    with load(folder, config=config) as pipeline:
        return pipeline.generate(prompt="a fox", size=[32, 32], frames=2, steps=2, seed=1).latents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny(place, 0)
    return place


def test_the_prompt_counts(folder: Path) -> None:
    with load(folder) as pipeline:
        request: dict[str, Any] = {"size": [32, 32], "frames": 2, "steps": 2, "seed": 1}
        first, other = (pipeline.generate(prompt=text, **request).latents for text in ("a fox", "two cats"))
    assert not torch.allclose(first, other)


def test_weights_may_move(folder: Path) -> None:
    assert torch.equal(latents(folder, offloader="sequential"), latents(folder))


def test_weights_may_be_quantized(folder: Path) -> None:
    plain = latents(folder)
    section = {"use": "dequant", "options": {"dequant": {"format": "int8-channel"}}}
    quantized = latents(folder, quantizer=section)
    assert 0 < (quantized - plain).norm() / plain.norm() < 0.1
