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

    prompt: str | None
    """prompt: what the video shows"""
    negative_prompt: str | None
    """negative prompt: what it should not show; absent: the model's official one; empty: none"""
    scheduler: Choice
    """timesteps and update rule; absent: the model's"""
    size: Sequence[int] | str | None
    """width and height: '832x480' or [832, 480]"""
    frames: int | None
    """frames of the video, 4k+1 for Wan"""
    fps: float | None
    """frames per second (FPS) of the file"""
    steps: int | None
    """steps of denoising"""
    guide_scale: float | Sequence[float] | None
    """guidance scale (CFG); two values are high-noise expert first; 1 switches guidance off"""
    shift: float | None
    """flow shift of the noise levels, one number: experts that take turns share one schedule"""
    seed: int
    """seed of the noise; the same on every device"""
    batched_guidance: bool
    """run both guidance passes as one batch: more memory, fewer launches"""


class LoadKeywords(RequestKeywords, total=False):
    """What ``load`` takes: the pipeline's own values, and defaults of requests."""

    model: Choice
    """model family; auto recognizes it"""
    task: str | None
    """t2v, i2v, flf2v, vace or animate"""
    dtype: Dtype
    """compute dtype; auto: bfloat16 on CUDA, float32 on CPU"""
    device: str
    """auto, cpu, cuda or cuda:N"""
    attention: Choice
    """attention kernel"""
    quantizer: Choice
    """kernel for quantized weights"""
    offloader: Choice
    """where weights live while they are not used"""
    vram_limit: int | str | None
    """memory of the device that may be used: '24GB'; absent: all of it"""
    ram_limit: int | str | None
    """memory of the machine that may be used: '32GB'; absent: all of it"""
    lora_applier: Choice
    """how LoRA files are applied"""
    components: Mapping[str, Mapping[str, object]]
    """overrides for dit (both experts where there are two), high_noise, low_noise, text_encoder,
    image_encoder, vae"""
    loras: Sequence[str | Path | Mapping[str, object]]
    """LoRA files, applied in order"""
    strict_lora: bool
    """refuse a LoRA file of which a part has no effect, instead of warning"""


class GenerateKeywords(RequestKeywords, total=False):
    """What ``generate`` takes: a request, and its inputs as paths, PIL images, arrays or tensors."""

    image: object
    """image that the video begins with: its first frame"""
    last_image: object
    """image that it ends with: its last frame"""
    src_video: object
    """video to edit"""
    src_mask: object
    """mask of what to change"""
    ref_images: object
    """reference images"""
    pose_video: object
    """pose video"""
    face_video: object
    """face video"""
    background_video: object
    """background video"""
    mask_video: object
    """mask video"""


class PlanKeywords(LoadKeywords, total=False):
    """What ``plan_run`` takes: as ``load``, and the paths of inputs."""

    image: str | Path | None
    """image that the video begins with: its first frame"""
    last_image: str | Path | None
    """image that it ends with: its last frame"""
    src_video: str | Path | None
    """video to edit"""
    src_mask: str | Path | None
    """mask of what to change"""
    ref_images: Paths
    """reference images"""
    pose_video: str | Path | None
    """pose video"""
    face_video: str | Path | None
    """face video"""
    background_video: str | Path | None
    """background video"""
    mask_video: str | Path | None
    """mask video"""
