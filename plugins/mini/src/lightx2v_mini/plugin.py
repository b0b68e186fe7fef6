"""The entry point: the checkpoints of this distribution, and the settings that they were trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightx2v_core.api import CheckpointSpec, hookimpl

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
#: what all of them were trained on: the size and length of clips, and how noise levels were drawn
TRAINED_ON = {"size": [48, 48], "frames": 9, "fps": 8, "shift": 3, "steps": 20, "guide_scale": 3}


@hookimpl
def lightx2v_checkpoints() -> list[CheckpointSpec[Any]]:
    return [
        CheckpointSpec(
            name="mini",
            summary="a tiny Wan2.1 text-to-video of moving shapes",
            folder=lambda: CHECKPOINTS / "t2v",
            settings={"sampling": TRAINED_ON, "negative_prompt": ""},
        )
    ]
