"""Recognition of A14B checkpoints and their official defaults, from headers alone.

Defaults: the official configuration (Wan-Video/Wan2.2, ``wan/configs``); for first-and-last-frame, which has none
there, those of LightX2V.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightx2v_core.api import CheckpointFacts, Defaults, Geometry, Recognition, Request, Stage
from lightx2v_wan21.api import (
    NEGATIVE,
    changing_stages,
    distilled_note,
    half_distilled,
    input_channels,
    output_channels,
    says_wan21,
)
from lightx2v_wan22.family import Family, Network
from lightx2v_wan22.options import A14bOptions
from lightx2v_wan22.repositories import A14B

LATENT_CHANNELS = 16
EXPERTS = ("high_noise", "low_noise")
#: share of the timesteps at and above which the high-noise expert runs; the second for i2v and flf2v
TEXT_BOUNDARY, IMAGE_BOUNDARY = 0.875, 0.900
#: input channels of an expert -> tasks; 36 are 16 of noise, 4 of a mask and 16 of image latents
_TASKS = {16: ("t2v",), 36: ("i2v", "flf2v")}
_OTHERS = (
    ("vace_patch_embedding.weight", "a VACE"),
    ("pose_patch_embedding.weight", "an Animate"),
    ("img_emb.proj.0.weight", "a Wan2.1 image-to-video"),
)


class A14b(Family[A14bOptions]):
    """Two experts, for text or for images."""

    options = A14bOptions
    repositories: ClassVar = A14B
    networks: ClassVar = EXPERTS
    title: ClassVar = "high-noise expert"
    released: ClassVar = (5120, 40, "a14b")
    presets: ClassVar = ((1280, 720), (832, 480))

    def refusal(self, facts: CheckpointFacts) -> str:
        shapes = facts.headers["high_noise"].shapes
        for name, kind in _OTHERS:
            if name in shapes:
                return f"its experts are {kind} network (they have {name!r})"
        if "low_noise" not in facts.headers and _file(facts, "high_noise").parent.name == "transformer":
            return "it has one transformer; A14B has two experts"
        if "low_noise" not in facts.headers and says_wan21(_file(facts, "high_noise").stem):
            return "its name contains Wan2.1, which has no experts"
        channels, outputs = input_channels(shapes), output_channels(shapes)
        if channels not in _TASKS:
            return f"its experts have {channels} input channels; A14B has {' or '.join(map(str, _TASKS))}"
        if outputs != LATENT_CHANNELS:
            return f"its experts have {outputs} output channels; A14B has {LATENT_CHANNELS}"
        return ""

    def tasks(self, facts: CheckpointFacts) -> tuple[str, ...]:
        return _TASKS[input_channels(facts.headers["high_noise"].shapes)]

    def kind(self, tasks: tuple[str, ...]) -> str:
        return tasks[0]

    def summary(self, network: Network, tasks: tuple[str, ...]) -> str:
        dit = network.dit
        return (
            f"Wan2.2 {'text' if tasks == ('t2v',) else 'image'}-to-video, two experts of {dit.num_layers} blocks "
            f"of width {dit.dim}, {dit.num_heads} heads"
        )

    def notes(self, facts: CheckpointFacts, telling: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not telling:
            return half_distilled(facts, EXPERTS)
        shift, scale = (12, "4,3") if tasks == ("t2v",) else (5, "3.5")
        return (
            distilled_note(telling, f"--scheduler unipc --steps 40 --guide-scale {scale} --shift {shift}"),
        )

    def defaults(self, recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
        """Return the official defaults.

        40 steps of unipc, 81 frames at 16 fps, 1280x720; shift and guidance by task. For distilled experts those of
        LightX2V: their own scheduler, shift 5 (16 for flf2v), no guidance.
        """
        width, height = size or (1280, 720)
        steps = recognition.architecture["distilled"]
        shift = {"t2v": 12.0, "i2v": 5.0, "flf2v": 16.0}[task]
        guide_scale = (4.0, 3.0) if task == "t2v" else (3.5, 3.5)
        return Defaults(
            width=width,
            height=height,
            frames=81,
            fps=16,
            steps=steps or 40,
            shift=min(shift, 5.0) if steps and task != "flf2v" else shift,
            guide_scale=(1.0,) if steps else guide_scale,
            scheduler="distill" if steps else "unipc",
            negative_prompt=NEGATIVE,
        )

    def least_frames(self, task: str) -> int:
        """Return the minimum number of frames: flf2v needs a first and a last frame."""
        return 5 if task == "flf2v" else 1

    def stages(
        self, recognition: Recognition, request: Request, shape: Geometry, options: A14bOptions
    ) -> Sequence[Stage]:
        """Return one stage, or those of the changing resolution."""
        _, rows, columns = recognition.architecture["patch_size"]
        rates, steps = options.changing_resolution_rates, options.changing_resolution_steps
        return changing_stages(recognition, request, shape, rates, steps, (rows, columns))

    def encoded_videos(self, recognition: Recognition) -> int:
        return 0 if recognition.tasks == ("t2v",) else 1


def _file(facts: CheckpointFacts, name: str) -> Path:
    """Return one of the files of a component."""
    return next(iter(facts.headers[name].tensors.values())).file


FAMILY = A14b()
