"""The configuration of a run. ``None`` means: not said, take the default of the model or the machine."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen
from attrs import validators as v

#: how many implementations may be tried in order
MOST_NAMES = 100

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@frozen
class Between:
    """A validator for a number, or for each of several: ``low`` <= value <= ``high``, or ``low`` < value if ``above``.
    None passes: it means that nothing was said."""

    low: float
    high: float
    above: bool = False
    #: what to do in place of a number that is out of range
    hint: str = ""

    def __call__(self, _instance: Any, attribute: Any, value: Any) -> None:
        for number in value if isinstance(value, Sequence) else (value,):
            fits = number is None or (self.low < number if self.above else self.low <= number)
            if fits and (number is None or number <= self.high):
                continue
            start = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
            end = "" if self.high == math.inf else f", at most {self.high:g}"
            hint = f"; {self.hint}" if self.hint else ""
            raise ValueError(f"{attribute.name!r} must be {start}{end}: {number!r}{hint}")


def _between(low: float, high: float, *, above: bool = False, hint: str = "") -> Between:
    return Between(low, high, above, hint)


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@frozen(kw_only=True)
class Section:
    """A choice of implementation: ``use`` holds ``auto``, one name, or several that are tried in order."""

    use: tuple[str, ...] = field(
        validator=[v.min_len(1), v.max_len(MOST_NAMES)],
        metadata=_help("a name, or names tried in order; name? is passed over where nothing is called so"),
    )
    options: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        metadata=_help(
            "options of an implementation, under its name; those under * are for whichever is chosen, below its own"
        ),
    )

    @property
    def want(self) -> str | tuple[str, ...]:
        """What the registry is asked for."""
        return self.use[0] if len(self.use) == 1 else self.use


@frozen(kw_only=True)
class ComponentConfig:
    """Overrides for one component."""

    path: str | None = field(default=None, metadata=_help("file or folder to read it from"))
    precision: str | None = field(
        default=None,
        metadata=_help("which of several files or folders: original, fp8, int8, or a dtype"),
    )
    distilled: bool | None = field(
        default=None, metadata=_help("which of several networks: a distilled one, or an ordinary one")
    )
    assets: Mapping[str, str] = field(
        factory=dict,
        metadata=_help(
            "other files it needs, by their names, such as tokenizer: a file, or the folder it is in"
        ),
    )
    quantizer: Section | None = field(default=None, metadata=_help("quantizer of this component"))
    offloader: Section | None = field(default=None, metadata=_help("offloader of this component"))


def drawn_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(2**32)


@frozen(kw_only=True)
class SamplingConfig:
    """How to sample. Sizes in pixels; absent values are the model's official ones."""

    size: tuple[int, int] | None = field(
        default=None,
        validator=_between(1, 16384),
        metadata=_help('width and height: "832x480" or [832, 480]'),
    )
    frames: int | None = field(
        default=None, validator=_between(1, 100_000), metadata=_help("frames of the video, 4k+1 for Wan")
    )
    fps: float | None = field(
        default=None,
        validator=_between(0, 1000, above=True),
        metadata=_help("frames per second (FPS) of the file"),
    )
    steps: int | None = field(default=None, validator=_between(1, 1000), metadata=_help("steps of denoising"))
    guide_scale: tuple[float, ...] | None = field(
        default=None,
        validator=[_between(0, 1e4), v.optional([v.min_len(1), v.max_len(2)])],
        metadata=_help(
            "guidance scale (CFG); two values are high-noise expert first; 1 switches guidance off"
        ),
    )
    shift: float | None = field(
        default=None,
        validator=_between(0, 1e4, above=True),
        metadata=_help(
            "flow shift of the noise levels, one number: experts that take turns share one schedule"
        ),
    )
    seed: int = field(
        default=42,
        validator=_between(
            0,
            2**63 - 1,
            hint="leave it out for the default one, or draw one with --seed random, which the record keeps",
        ),
        metadata=_help("seed of the noise; the same on every device"),
    )
    batched_guidance: bool = field(
        default=False, metadata=_help("run both guidance passes as one batch: more memory, fewer launches")
    )


@frozen(kw_only=True)
class MemoryConfig:
    """How much memory a run may take, and what forecasts of time go by. Sizes in bytes, or texts such as "24GB"."""

    vram_limit: int | None = field(
        default=None,
        validator=_between(1, math.inf),
        metadata=_help('memory of the device that may be used: "24GB"; absent: all of it'),
    )
    ram_limit: int | None = field(
        default=None,
        validator=_between(1, math.inf),
        metadata=_help('memory of the machine that may be used: "32GB"; absent: all of it'),
    )
    copy_speed: int | None = field(
        default=None,
        validator=_between(1, math.inf),
        metadata=_help('bytes a second from the machine\'s memory to the device: "25GB"; for forecasts'),
    )
    disk_speed: int | None = field(
        default=None,
        validator=_between(1, math.inf),
        metadata=_help('bytes a second from the disk of the model: "3GB"; for forecasts'),
    )
    compute_speed: float | None = field(
        default=None,
        validator=_between(0, math.inf, above=True),
        metadata=_help("10^12 operations a second that the device reaches; for forecasts"),
    )


@frozen(kw_only=True)
class LoraConfig:
    """One LoRA file."""

    path: str = field(metadata=_help("the file"))
    strength: float = field(default=1.0, metadata=_help("factor on top of alpha / rank"))
    alpha: float | None = field(
        default=None,
        validator=_between(0, math.inf, above=True),
        metadata=_help("alpha when the file has none, or does not say it clearly"),
    )
    alpha_override: bool = field(default=False, metadata=_help("let alpha win over the alphas of the file"))
    name: str | None = field(
        default=None,
        metadata=_help("network it is for, where there are two: high_noise_model, low_noise_model or both"),
    )

    @alpha_override.validator
    def _has_alpha(self, _attribute: Any, value: bool) -> None:
        if value and self.alpha is None:
            raise ValueError("'alpha_override' needs an 'alpha' that wins")


@frozen(kw_only=True)
class InputsConfig:
    """Images and videos a task starts from; which of them it takes depends on the task."""

    image: str | None = field(
        default=None, metadata=_help("image that the video begins with: its first frame")
    )
    last_image: str | None = field(default=None, metadata=_help("image that it ends with: its last frame"))
    src_video: str | None = field(default=None, metadata=_help("video to edit"))
    src_mask: str | None = field(default=None, metadata=_help("mask of what to change"))
    ref_images: tuple[str, ...] | None = field(default=None, metadata=_help("reference images"))
    pose_video: str | None = field(default=None, metadata=_help("pose video"))
    face_video: str | None = field(default=None, metadata=_help("face video"))
    background_video: str | None = field(default=None, metadata=_help("background video"))
    mask_video: str | None = field(default=None, metadata=_help("mask video"))


@frozen(kw_only=True)
class OutputConfig:
    """Where and how the result is written."""

    path: str | None = field(
        default=None, metadata=_help("an .mp4 file, a .png for one frame, or a folder of PNGs")
    )
    record: bool = field(default=True, metadata=_help("write the run record beside the result and into it"))
    crf: int = field(default=18, validator=_between(0, 51), metadata=_help("H.264 quality, lower is better"))
    overwrite: bool = field(default=True, metadata=_help("replace a result that is there; false refuses"))


@frozen(kw_only=True)
class RunConfig:
    """Everything that can be configured about a run."""

    model_path: str | None = field(default=None, metadata=_help("folder of the model"))
    model: Section = field(
        factory=lambda: Section(use=("auto",)), metadata=_help("model family; auto recognizes it")
    )
    task: str | None = field(default=None, metadata=_help("t2v, i2v, flf2v, vace or animate"))
    prompt: str | None = field(default=None, metadata=_help("prompt: what the video shows"))
    negative_prompt: str | None = field(
        default=None,
        metadata=_help(
            "negative prompt: what it should not show; absent: the model's official one; empty: none"
        ),
    )
    dtype: Dtype = field(
        default="auto", metadata=_help("compute dtype; auto: bfloat16 on CUDA, float32 on CPU")
    )
    device: str = field(default="auto", metadata=_help("auto, cpu, cuda or cuda:N"))
    attention: Section = field(factory=lambda: Section(use=("auto",)), metadata=_help("attention kernel"))
    quantizer: Section | None = field(default=None, metadata=_help("kernel for quantized weights"))
    offloader: Section = field(
        factory=lambda: Section(use=("none",)), metadata=_help("where weights live while they are not used")
    )
    memory: MemoryConfig = field(
        factory=MemoryConfig, metadata=_help("limits of memory, which offloader=auto keeps")
    )
    lora_applier: Section = field(
        factory=lambda: Section(use=("merge",)), metadata=_help("how LoRA files are applied")
    )
    scheduler: Section | None = field(
        default=None, metadata=_help("timesteps and update rule; absent: the model's")
    )
    components: Mapping[str, ComponentConfig] = field(
        factory=dict,
        metadata=_help(
            "overrides for dit (both experts where there are two), high_noise, low_noise, text_encoder, "
            "image_encoder, vae"
        ),
    )
    sampling: SamplingConfig = field(factory=SamplingConfig, metadata=_help("how to sample"))
    inputs: InputsConfig = field(factory=InputsConfig, metadata=_help("images and videos to start from"))
    loras: tuple[LoraConfig, ...] = field(default=(), metadata=_help("LoRA files, applied in order"))
    strict_lora: bool = field(
        default=False, metadata=_help("refuse a LoRA file of which a part has no effect, instead of warning")
    )
    output: OutputConfig = field(factory=OutputConfig, metadata=_help("where and how the result is written"))
