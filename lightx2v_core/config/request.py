"""The sections of a configuration that a request may change: sampling parameters and inputs."""

from __future__ import annotations

from typing import Any

from attrs import fields, frozen
from attrs import validators as v

from lightx2v_core.config.knob import ONE_NUMBER, SIZE, given
from lightx2v_core.config.ranges import Between
from lightx2v_core.config.texts import seed


@frozen(kw_only=True)
class SamplingConfig:
    """Sampling parameters. Sizes in pixels; unset values default to the official ones of the model."""

    size: tuple[int, int] | None = given(
        None, 'width and height in pixels: "832x480" or [832, 480]', "--size",
        option_help="Width and height in pixels, such as 832x480.", metavar="WxH", short=SIZE, keyword="request",
        validator=Between(1, 16384),
    )  # fmt: skip
    frames: int | None = given(
        None, "number of frames (4k+1 for Wan)", "--frames", keyword="request", flat="target_video_length",
        validator=Between(1, 100_000),
    )  # fmt: skip
    fps: float | None = given(
        None, "frame rate of the output file, in frames per second (FPS)", "--fps", metavar="N", keyword="request",
        flat="fps", validator=Between(0, 1000, above=True),
    )  # fmt: skip
    steps: int | None = given(
        None, "number of denoising steps", "--steps", keyword="request", flat="infer_steps", validator=Between(1, 1000),
    )  # fmt: skip
    guide_scale: tuple[float, ...] | None = given(
        None, "guidance scale (CFG); two values: high-noise expert, low-noise expert; 1 disables guidance",
        "--guide-scale",
        option_help="Guidance scale (CFG). Two values: high-noise expert, low-noise expert. 1 disables guidance.",
        short=ONE_NUMBER, keyword="request", validator=[Between(0, 1e4), v.optional([v.min_len(1), v.max_len(2)])],
    )  # fmt: skip
    shift: float | None = given(
        None, "flow shift of the noise schedule; one number, since two experts share one schedule", "--shift",
        option_help="Flow shift of the noise schedule.", keyword="request", flat="sample_shift",
        validator=Between(0, 1e4, above=True),
    )  # fmt: skip
    seed: int = given(
        42, "random seed of the noise; gives the same noise on every device", "--seed",
        option_help="Random seed (default: 42); 'random' draws one and stores it in the run record.",
        read=seed, keyword="request", flat="seed",
        validator=Between(0, 2**63 - 1, hint=(
            "omit it for the default, or use --seed random, which is stored in the run record"
        )),
    )  # fmt: skip
    batched_guidance: bool = given(
        False, "run both guidance passes as one batch (more memory, fewer kernel launches)", "--batched-guidance",
        keyword="request",
    )  # fmt: skip

    @property
    def undecided(self) -> dict[str, Any]:
        """Return the values with a default of their own (``seed``, ...), which no model sets."""
        return {
            field.name: getattr(self, field.name) for field in fields(type(self)) if field.default is not None
        }


def _file(help: str, *options: str, option_help: str = "", multiple: bool = False) -> Any:
    """Define a field for files. The second option name is that of LightX2V's command line and configuration files."""
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
    """Input images and videos. Which of them are accepted depends on the task."""

    image: str | None = _file("image for the first frame", "--image", "--image_path")
    last_image: str | None = _file("image for the last frame", "--last-image", "--last_frame_path")
    src_video: str | None = _file("source video to edit", "--src-video", "--src_video")
    src_mask: str | None = _file("mask of the regions to edit", "--src-mask", "--src_mask")
    ref_images: tuple[str, ...] | None = _file(
        "reference images", "--ref-image", "--src_ref_images", option_help="Reference image. Repeatable.",
        multiple=True,
    )  # fmt: skip
    pose_video: str | None = _file("pose video", "--pose-video", "--src_pose_path")
    face_video: str | None = _file("face video", "--face-video", "--src_face_path")
    background_video: str | None = _file("background video", "--background-video", "--src_bg_path")
    mask_video: str | None = _file("mask video", "--mask-video", "--src_mask_path")
