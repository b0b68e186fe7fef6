"""The keyword arguments of ``load``, ``generate`` and ``plan_run``, for editors and type checkers.

Written by tests/config/test_keyword_types.py from the fields of the configuration; change those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from lightx2v_core.config.model import Dtype

#: a name, names that are tried in order, or ``{"use": ..., "options": ...}``
Choice: TypeAlias = str | Sequence[str] | Mapping[str, object] | None
Paths: TypeAlias = Sequence[str | Path] | None


class RequestKeywords(TypedDict, total=False):
    """What a request may say."""

    #: prompt: what the video shows
    prompt: str | None
    #: negative prompt: what it should not show; absent: the model's official one; empty: none
    negative_prompt: str | None
    #: timesteps and update rule; absent: the model's
    scheduler: Choice
    #: width and height: "832x480" or [832, 480]
    size: Sequence[int] | str | None
    #: frames of the video, 4k+1 for Wan
    frames: int | None
    #: frames per second (FPS) of the file
    fps: float | None
    #: steps of denoising
    steps: int | None
    #: guidance scale (CFG); two values are high-noise expert first; 1 switches guidance off
    guide_scale: float | Sequence[float] | None
    #: flow shift of the noise levels, one number: experts that take turns share one schedule
    shift: float | None
    #: seed of the noise; the same on every device
    seed: int
    #: run both guidance passes as one batch: more memory, fewer launches
    batched_guidance: bool


class LoadKeywords(RequestKeywords, total=False):
    """What ``load`` takes: the pipeline's own values, and defaults of requests."""

    #: model family; auto recognizes it
    model: Choice
    #: t2v, i2v, flf2v, vace or animate
    task: str | None
    #: compute dtype; auto: bfloat16 on CUDA, float32 on CPU
    dtype: Dtype
    #: auto, cpu, cuda or cuda:N
    device: str
    #: attention kernel
    attention: Choice
    #: kernel for quantized weights
    quantizer: Choice
    #: where weights live while they are not used
    offloader: Choice
    #: memory of the device that may be used: "24GB"; absent: all of it
    vram_limit: int | str | None
    #: memory of the machine that may be used: "32GB"; absent: all of it
    ram_limit: int | str | None
    #: how LoRA files are applied
    lora_applier: Choice
    #: overrides for dit (both experts where there are two), high_noise, low_noise, text_encoder,
    #: image_encoder, vae
    components: Mapping[str, Mapping[str, object]]
    #: LoRA files, applied in order
    loras: Sequence[str | Path | Mapping[str, object]]
    #: refuse a LoRA file of which a part has no effect, instead of warning
    strict_lora: bool


class GenerateKeywords(RequestKeywords, total=False):
    """What ``generate`` takes: a request, and its inputs as paths, PIL images, arrays or tensors."""

    #: image that the video begins with: its first frame
    image: object
    #: image that it ends with: its last frame
    last_image: object
    #: video to edit
    src_video: object
    #: mask of what to change
    src_mask: object
    #: reference images
    ref_images: object
    #: pose video
    pose_video: object
    #: face video
    face_video: object
    #: background video
    background_video: object
    #: mask video
    mask_video: object


class PlanKeywords(LoadKeywords, total=False):
    """What ``plan_run`` takes: as ``load``, and the paths of inputs."""

    #: image that the video begins with: its first frame
    image: str | Path | None
    #: image that it ends with: its last frame
    last_image: str | Path | None
    #: video to edit
    src_video: str | Path | None
    #: mask of what to change
    src_mask: str | Path | None
    #: reference images
    ref_images: Paths
    #: pose video
    pose_video: str | Path | None
    #: face video
    face_video: str | Path | None
    #: background video
    background_video: str | Path | None
    #: mask video
    mask_video: str | Path | None
