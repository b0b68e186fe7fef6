"""The contract of bundled checkpoints, and a run of this one."""

from __future__ import annotations

import torch
from lightx2v_core import load
from lightx2v_core.testing.contracts import CheckpointContract


class TestCheckpoint(CheckpointContract):
    use = "pebble"


def test_its_name_is_a_model_path() -> None:
    with load("pebble") as pipeline:
        result = pipeline.generate(prompt="a fox", steps=1, frames=2, seed=1)
    assert result.frames.shape == (3, 2, 64, 64)
    assert torch.isfinite(result.frames).all()
