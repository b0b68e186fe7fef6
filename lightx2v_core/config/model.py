"""The configuration of a run. ``None`` means: not said, take the default of the model or the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen
from attrs import validators as v

from lightx2v_core.config.knob import BYTES, declared, given
from lightx2v_core.config.ranges import Between
from lightx2v_core.config.request import InputsConfig, SamplingConfig
from lightx2v_core.config.texts import either, parse_lora_option
from lightx2v_core.discovery import catalog

#: how many implementations may be tried in order
MOST_NAMES = 100

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@frozen(kw_only=True)
class Section:
    """A choice of implementation: ``use`` holds ``auto``, one name, or several that are tried in order."""

    use: tuple[str, ...] = field(
        validator=[v.min_len(1), v.max_len(MOST_NAMES)],
        metadata=declared("a name, or names tried in order; name? is passed over where nothing is called so"),
    )
    options: Mapping[str, Mapping[str, Any]] = given(
        attrs.Factory(dict),
        "options of an implementation, under its name; those under * are for whichever is chosen, below its own",
    )

    @property
    def want(self) -> str | tuple[str, ...]:
        """What the registry is asked for."""
        return self.use[0] if len(self.use) == 1 else self.use


@frozen(kw_only=True)
class ComponentConfig:
    """Overrides for one component."""

    path: str | None = given(None, "file or folder to read it from")
    precision: str | None = given(None, "which of several files or folders: original, fp8, int8, or a dtype")
    distilled: bool | None = given(None, "which of several networks: a distilled one, or an ordinary one")
    assets: Mapping[str, str] = given(
        attrs.Factory(dict),
        "other files it needs, by their names, such as tokenizer: a file, or the folder it is in",
    )
    quantizer: Section | None = given(None, "quantizer of this component")
    offloader: Section | None = given(None, "offloader of this component")


@frozen(kw_only=True)
class MemoryConfig:
    """How much memory a run may take, and what forecasts of time go by. Sizes in bytes, or texts such as "24GB"."""

    vram_limit: int | None = given(
        None, 'memory of the device that may be used: "24GB"; absent: all of it', "--vram-limit",
        option_help="Device memory to use, such as 24GB.", metavar="SIZE", short=BYTES, keyword="load",
        validator=Between(1, math.inf),
    )  # fmt: skip
    ram_limit: int | None = given(
        None, 'memory of the machine that may be used: "32GB"; absent: all of it', "--ram-limit",
        option_help="Memory of the machine to use, such as 32GB.", metavar="SIZE", short=BYTES, keyword="load",
        validator=Between(1, math.inf),
    )  # fmt: skip
    copy_speed: int | None = given(
        None, 'bytes a second from the machine\'s memory to the device: "25GB"; for forecasts', short=BYTES,
        validator=Between(1, math.inf),
    )  # fmt: skip
    disk_speed: int | None = given(
        None, 'bytes a second from the disk of the model: "3GB"; for forecasts', short=BYTES,
        validator=Between(1, math.inf),
    )  # fmt: skip
    compute_speed: float | None = given(
        None, "10^12 operations a second that the device reaches; for forecasts",
        validator=Between(0, math.inf, above=True),
    )  # fmt: skip


@frozen(kw_only=True)
class LoraConfig:
    """One LoRA file, and how it is applied.

    ``ValueError`` for a value that is out of range, and for ``alpha_override`` without ``alpha``.
    """

    path: str = field(metadata=declared("the file"))
    strength: float = given(1.0, "factor on top of alpha / rank")
    alpha: float | None = given(
        None, "alpha when the file has none, or does not say it clearly", validator=Between(0, math.inf, above=True),
    )  # fmt: skip
    alpha_override: bool = given(False, "let alpha win over the alphas of the file")
    name: str | None = given(
        None, "network it is for, where there are two: high_noise_model, low_noise_model or both"
    )

    @alpha_override.validator
    def _has_alpha(self, _attribute: Any, value: bool) -> None:
        if value and self.alpha is None:
            raise ValueError("'alpha_override' needs an 'alpha' that wins")


@frozen(kw_only=True)
class OutputConfig:
    """Where and how the result is written."""

    path: str | None = given(
        None, "an .mp4 file, a .png for one frame, or a folder of PNGs", "--output", "--save_result_path",
        option_help="An .mp4, a .png for one frame, or a folder (ending in /) of PNGs.", metavar="FILE",
        flat="save_result_path",
    )  # fmt: skip
    record: bool = given(
        True, "write the run record beside the result and into it", "--no-record", option_help="Write no run record.",
    )  # fmt: skip
    crf: int = given(18, "H.264 quality, lower is better", validator=Between(0, 51))
    overwrite: bool = given(
        True, "replace a result that is there; false refuses", "--no-overwrite",
        option_help="Refuse an output that is there already; else it is replaced, as a whole.",
    )  # fmt: skip


@frozen(kw_only=True)
class RunConfig:
    """Everything that can be configured about a run."""

    model_path: str | None = given(None, "folder of the model", "--model-path", "--model_path", metavar="DIR")
    model: Section = given(
        attrs.Factory(lambda: Section(use=("auto",))), "model family; auto recognizes it", "--model", "--model_cls",
        option_help="Model family; absent: recognized.", metavar="NAME", keyword="load", flat="model_cls",
    )  # fmt: skip
    task: str | None = given(
        None, either(catalog.tasks()), "--task", option_help=f"{either(catalog.tasks())}.", metavar="TASK",
        keyword="load",
    )  # fmt: skip
    prompt: str | None = given(None, "prompt: what the video shows", "--prompt", keyword="request")
    negative_prompt: str | None = given(
        None, "negative prompt: what it should not show; absent: the model's official one; empty: none",
        "--negative-prompt", "--negative_prompt",
        option_help="Negative prompt: what it should not show; absent: the model's official one, empty: none.",
        keyword="request",
    )  # fmt: skip
    dtype: Dtype = given(
        "auto", "compute dtype; auto: bfloat16 on CUDA, float32 on CPU", "--dtype",
        option_help="bfloat16, float16 or float32.", metavar="NAME", keyword="load",
    )  # fmt: skip
    device: str = given(
        "auto", "auto, cpu, cuda or cuda:N", "--device", option_help="auto, cpu, cuda or cuda:N.", metavar="NAME",
        keyword="load",
    )  # fmt: skip
    attention: Section = given(
        attrs.Factory(lambda: Section(use=("auto",))), "attention kernel", "--attention",
        option_help="Attention kernel, or several to try in order.", keyword="load",
    )  # fmt: skip
    quantizer: Section | None = given(
        None, "kernel for quantized weights", "--quantizer",
        option_help="Kernel for weights in fp8 or int8; plain weights are quantized with it while they are read.",
        keyword="load",
    )  # fmt: skip
    offloader: Section = given(
        attrs.Factory(lambda: Section(use=("none",))), "where weights live while they are not used", "--offloader",
        option_help="Where weights live while they are not used; auto: the least costly that fits the limits.",
        keyword="load",
    )  # fmt: skip
    memory: MemoryConfig = given(attrs.Factory(MemoryConfig), "limits of memory, which offloader=auto keeps")
    lora_applier: Section = given(
        attrs.Factory(lambda: Section(use=("merge",))), "how LoRA files are applied", "--lora-applier",
        option_help="merge: LoRA files become part of the weights; dynamic: they stay beside them.", keyword="load",
    )  # fmt: skip
    scheduler: Section | None = given(
        None, "timesteps and update rule; absent: the model's", "--scheduler",
        option_help="Timesteps and update rule.", metavar="NAME", keyword="request",
    )  # fmt: skip
    components: Mapping[str, ComponentConfig] = given(
        attrs.Factory(dict),
        "overrides for dit (both experts where there are two), high_noise, low_noise, text_encoder, image_encoder, vae",
        keyword="load",
    )
    sampling: SamplingConfig = given(attrs.Factory(SamplingConfig), "how to sample")
    inputs: InputsConfig = given(attrs.Factory(InputsConfig), "images and videos to start from")
    loras: tuple[LoraConfig, ...] = given(
        (), "LoRA files, applied in order", "--lora",
        option_help="LoRA file; give it again for more. In front: which of two experts it is for.",
        metavar="[high:|low:|both:]PATH[:STRENGTH]", read=parse_lora_option, multiple=True, keyword="load",
        flat="lora_configs",
    )  # fmt: skip
    strict_lora: bool = given(
        False, "refuse a LoRA file of which a part has no effect, instead of warning", "--strict-lora",
        option_help="Refuse a LoRA file of which a part has no effect.", keyword="load",
    )  # fmt: skip
    output: OutputConfig = given(attrs.Factory(OutputConfig), "where and how the result is written")
