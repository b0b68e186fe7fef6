"""The sections of a configuration that a request may change: how to sample, and what from."""

from __future__ import annotations

from attrs import field, frozen
from attrs import validators as v

from lightx2v_core.config.knob import ONE_NUMBER, SIZE, knob
from lightx2v_core.config.ranges import Between
from lightx2v_core.config.texts import seed


@frozen(kw_only=True)
class SamplingConfig:
    """How to sample. Sizes in pixels; absent values are the model's official ones."""

    size: tuple[int, int] | None = field(
        default=None,
        validator=Between(1, 16384),
        metadata=knob(
            'width and height: "832x480" or [832, 480]',
            "--size",
            option_help="Width and height in pixels, such as 832x480.",
            metavar="WxH",
            short=SIZE,
            keyword="request",
        ),
    )
    frames: int | None = field(
        default=None,
        validator=Between(1, 100_000),
        metadata=knob(
            "frames of the video, 4k+1 for Wan", "--frames", keyword="request", flat="target_video_length"
        ),
    )
    fps: float | None = field(
        default=None,
        validator=Between(0, 1000, above=True),
        metadata=knob(
            "frames per second (FPS) of the file", "--fps", metavar="N", keyword="request", flat="fps"
        ),
    )
    steps: int | None = field(
        default=None,
        validator=Between(1, 1000),
        metadata=knob("steps of denoising", "--steps", keyword="request", flat="infer_steps"),
    )
    guide_scale: tuple[float, ...] | None = field(
        default=None,
        validator=[Between(0, 1e4), v.optional([v.min_len(1), v.max_len(2)])],
        metadata=knob(
            "guidance scale (CFG); two values are high-noise expert first; 1 switches guidance off",
            "--guide-scale",
            option_help="Guidance scale (CFG); two values are high-noise expert first; 1 switches it off.",
            short=ONE_NUMBER,
            keyword="request",
        ),
    )
    shift: float | None = field(
        default=None,
        validator=Between(0, 1e4, above=True),
        metadata=knob(
            "flow shift of the noise levels, one number: experts that take turns share one schedule",
            "--shift",
            option_help="Shift of the noise levels (flow shift).",
            keyword="request",
            flat="sample_shift",
        ),
    )
    seed: int = field(
        default=42,
        validator=Between(
            0,
            2**63 - 1,
            hint="leave it out for the default one, or draw one with --seed random, which the record keeps",
        ),
        metadata=knob(
            "seed of the noise; the same on every device",
            "--seed",
            option_help="Seed; the same one makes the same video. random: one is drawn, and the record keeps it.",
            read=seed,
            keyword="request",
            flat="seed",
        ),
    )
    batched_guidance: bool = field(
        default=False,
        metadata=knob(
            "run both guidance passes as one batch: more memory, fewer launches",
            "--batched-guidance",
            keyword="request",
        ),
    )


@frozen(kw_only=True)
class InputsConfig:
    """Images and videos a task starts from; which of them it takes depends on the task."""

    image: str | None = field(
        default=None,
        metadata=knob(
            "image that the video begins with: its first frame",
            "--image",
            "--image_path",
            metavar="FILE",
            keyword="input",
            flat="image_path",
        ),
    )
    last_image: str | None = field(
        default=None,
        metadata=knob(
            "image that it ends with: its last frame",
            "--last-image",
            "--last_frame_path",
            metavar="FILE",
            keyword="input",
            flat="last_frame_path",
        ),
    )
    src_video: str | None = field(
        default=None,
        metadata=knob(
            "video to edit",
            "--src-video",
            "--src_video",
            metavar="FILE",
            keyword="input",
            flat="src_video",
        ),
    )
    src_mask: str | None = field(
        default=None,
        metadata=knob(
            "mask of what to change",
            "--src-mask",
            "--src_mask",
            metavar="FILE",
            keyword="input",
            flat="src_mask",
        ),
    )
    ref_images: tuple[str, ...] | None = field(
        default=None,
        metadata=knob(
            "reference images",
            "--ref-image",
            "--src_ref_images",
            option_help="Reference image; give it again for more.",
            metavar="FILE",
            multiple=True,
            keyword="input",
            flat="src_ref_images",
        ),
    )
    pose_video: str | None = field(
        default=None,
        metadata=knob(
            "pose video",
            "--pose-video",
            "--src_pose_path",
            metavar="FILE",
            keyword="input",
            flat="src_pose_path",
        ),
    )
    face_video: str | None = field(
        default=None,
        metadata=knob(
            "face video",
            "--face-video",
            "--src_face_path",
            metavar="FILE",
            keyword="input",
            flat="src_face_path",
        ),
    )
    background_video: str | None = field(
        default=None,
        metadata=knob(
            "background video",
            "--background-video",
            "--src_bg_path",
            metavar="FILE",
            keyword="input",
            flat="src_bg_path",
        ),
    )
    mask_video: str | None = field(
        default=None,
        metadata=knob(
            "mask video",
            "--mask-video",
            "--src_mask_path",
            option_help="Video of the mask.",
            metavar="FILE",
            keyword="input",
            flat="src_mask_path",
        ),
    )
