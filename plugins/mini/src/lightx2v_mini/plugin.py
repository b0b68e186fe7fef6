"""The checkpoints of this distribution, with the settings that they were trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightx2v_core.api import CheckpointSpec, hookimpl

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
#: size and length of the training clips, the same for all checkpoints
_CLIP = {"size": [48, 48], "frames": 9, "fps": 8}
#: settings of the training, with a number of steps that gives good videos
TRAINED_ON = {**_CLIP, "shift": 3, "steps": 20, "guide_scale": 5}
#: the distribution has the text encoder and the VAE only once, with the text-to-video network
_SHARED = {
    "text_encoder": {
        "path": "mini/models_t5_umt5-xxl-enc-bf16.pth",
        "assets": {"tokenizer": "mini/google/umt5-xxl"},
    },
    "vae": {"path": "mini/Wan2.1_VAE.pth"},
}

#: prompts like those of the training; the first ones cover all attributes
_VIDEOS = (
    "a red circle moves to the right on a blue background",
    "a large yellow square moves slowly to the left on a plain black background",
    "a small green triangle moves quickly up on a graded white background",
    "a purple circle moves down on a grey background",
    "a large white circle stands still on a green background",
    "一个红色的圆形在蓝色背景上向右移动",
    "一个大的黄色的方块在纯色黑色背景上慢慢地向左移动",
    "一个小的绿色的三角形在渐变白色背景上快速地向上移动",
    "一个紫色的圆形在灰色背景上向下移动",
    "一个大的白色的圆形在绿色背景上静止不动",
)
#: prompts for an image with a shape
_MOVES = (
    "a large purple square moves quickly to the left on a plain grey background",
    "a large purple square moves slowly to the right on a plain grey background",
    "a large purple square stands still on a plain grey background",
    "一个大的紫色的方块在纯色灰色背景上快速地向左移动",
    "一个大的紫色的方块在纯色灰色背景上慢慢地向右移动",
    "一个大的紫色的方块在纯色灰色背景上静止不动",
)


@hookimpl
def lightx2v_checkpoints() -> list[CheckpointSpec[Any]]:
    return [
        CheckpointSpec(
            name="mini",
            summary="a tiny Wan2.1 text-to-video of moving shapes",
            folder=lambda: CHECKPOINTS / "t2v",
            settings={"sampling": TRAINED_ON, "negative_prompt": ""},
            examples=_VIDEOS,
        ),
        CheckpointSpec(
            name="mini-i2v",
            summary="a tiny Wan2.1 image-to-video: moves the shape of an image",
            folder=lambda: CHECKPOINTS / "i2v",
            settings={"task": "i2v", "sampling": TRAINED_ON, "negative_prompt": "", "components": _SHARED},
            examples=_MOVES,
        ),
        CheckpointSpec(
            name="mini-experts",
            summary="a tiny pair of Wan2.2 experts for text-to-video, run by lightx2v-wan22",
            folder=lambda: CHECKPOINTS / "experts",
            settings={"sampling": TRAINED_ON, "negative_prompt": "", "components": _SHARED},
            examples=_VIDEOS,
        ),
        CheckpointSpec(
            name="mini-4step",
            summary="the tiny text-to-video distilled to four steps without guidance",
            folder=lambda: CHECKPOINTS / "t2v-4step",
            settings={"sampling": {**_CLIP, "shift": 5}, "components": _SHARED},
            examples=_VIDEOS,
        ),
    ]
