"""The sections of a configuration that a request may change: how to sample, and what from."""

from __future__ import annotations

from typing import Any

from attrs import fields, frozen
from attrs import validators as v

from lightx2v_core.config.knob import ONE_NUMBER, SIZE, given
from lightx2v_core.config.ranges import Between
from lightx2v_core.config.texts import seed


@frozen(kw_only=True)
class SamplingConfig:
    """How to sample. Sizes in pixels; absent values are the model's official ones."""

    size: tuple[int, int] | None = given(
        None, 'width and height: "832x480" or [832, 480]', "--size",
        option_help="Width and height in pixels, such as 832x480.", metavar="WxH", short=SIZE, keyword="request",
        validator=Between(1, 16384),
    )  # fmt: skip
    frames: int | None = given(
        None, "frames of the video, 4k+1 for Wan", "--frames", keyword="request", flat="target_video_length",
        validator=Between(1, 100_000),
    )  # fmt: skip
    fps: float | None = given(
        None, "frames per second (FPS) of the file", "--fps", metavar="N", keyword="request", flat="fps",
        validator=Between(0, 1000, above=True),
    )  # fmt: skip
    steps: int | None = given(
        None, "steps of denoising", "--steps", keyword="request", flat="infer_steps", validator=Between(1, 1000),
    )  # fmt: skip
    guide_scale: tuple[float, ...] | None = given(
        None, "guidance scale (CFG); two values are high-noise expert first; 1 switches guidance off",
        "--guide-scale",
        option_help="Guidance scale (CFG); two values are high-noise expert first; 1 switches it off.",
        short=ONE_NUMBER, keyword="request", validator=[Between(0, 1e4), v.optional([v.min_len(1), v.max_len(2)])],
    )  # fmt: skip
    shift: float | None = given(
        None, "flow shift of the noise levels, one number: experts that take turns share one schedule", "--shift",
        option_help="Shift of the noise levels (flow shift).", keyword="request", flat="sample_shift",
        validator=Between(0, 1e4, above=True),
    )  # fmt: skip
    seed: int = given(
        42, "seed of the noise; the same on every device", "--seed",
        option_help="Seed; the same one makes the same video. random: one is drawn, and the record keeps it.",
        read=seed, keyword="request", flat="seed",
        validator=Between(0, 2**63 - 1, hint=(
            "leave it out for the default one, or draw one with --seed random, which the record keeps"
        )),
    )  # fmt: skip
    batched_guidance: bool = given(
        False, "run both guidance passes as one batch: more memory, fewer launches", "--batched-guidance",
        keyword="request",
    )  # fmt: skip

    @property
    def undecided(self) -> dict[str, Any]:
        """The values that no model decides, since they have a default of their own: ``seed``, ..."""
        return {
            field.name: getattr(self, field.name) for field in fields(type(self)) if field.default is not None
        }


def _file(help: str, *options: str, option_help: str = "", multiple: bool = False) -> Any:
    """A field for files; the second spelling of its option is LightX2V's, of its command and of its files."""
    flat = options[1].removeprefix("--")
    return given(
        None,
        help,
        *options,
        option_help=option_help,
        metavar="FILE",
        multiple=multiple,
        keyword="input",
        flat=flat,
    )


@frozen(kw_only=True)
class InputsConfig:
    """Images and videos a task starts from; which of them it takes depends on the task."""

    image: str | None = _file("image that the video begins with: its first frame", "--image", "--image_path")
    last_image: str | None = _file(
        "image that it ends with: its last frame", "--last-image", "--last_frame_path"
    )
    src_video: str | None = _file("video to edit", "--src-video", "--src_video")
    src_mask: str | None = _file("mask of what to change", "--src-mask", "--src_mask")
    ref_images: tuple[str, ...] | None = _file(
        "reference images", "--ref-image", "--src_ref_images", option_help="Reference image; give it again for more.",
        multiple=True,
    )  # fmt: skip
    pose_video: str | None = _file("pose video", "--pose-video", "--src_pose_path")
    face_video: str | None = _file("face video", "--face-video", "--src_face_path")
    background_video: str | None = _file("background video", "--background-video", "--src_bg_path")
    mask_video: str | None = _file(
        "mask video", "--mask-video", "--src_mask_path", option_help="Video of the mask."
    )
