"""The configuration of a run. ``None`` means not set: the default of the model or the machine applies."""

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
from lightx2v_core.config.texts import parse_lora_option
from lightx2v_core.discovery import catalog

#: largest number of implementations to try in order
MOST_NAMES = 100

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@frozen(kw_only=True)
class Section:
    """A choice of implementation: ``use`` is ``auto``, one name, or several names to try in order."""

    use: tuple[str, ...] = field(
        validator=[v.min_len(1), v.max_len(MOST_NAMES)],
        metadata=declared("a name, or names in order of preference; NAME? is skipped if it is not installed"),
    )
    options: Mapping[str, Mapping[str, Any]] = given(
        attrs.Factory(dict),
        "options by name of the implementation; * applies to the chosen one, with lower precedence",
    )

    @property
    def want(self) -> str | tuple[str, ...]:
        """Return the name, or the names in order, to request from the registry."""
        return self.use[0] if len(self.use) == 1 else self.use


@frozen(kw_only=True)
class ComponentConfig:
    """Overrides for one component."""

    path: str | None = given(None, "file or folder of the weights")
    precision: str | None = given(
        None, "precision to choose among several files or folders (original, fp8, int8, or a dtype)"
    )
    distilled: bool | None = given(None, "whether to choose a distilled network among several")
    assets: Mapping[str, str] = given(
        attrs.Factory(dict),
        "other required files by name, such as tokenizer: a file, or its folder",
    )
    quantizer: Section | None = given(None, "quantizer of this component")
    offloader: Section | None = given(None, "offloader of this component")


@frozen(kw_only=True)
class MemoryConfig:
    """Memory limits of a run, and speeds for time forecasts. Sizes in bytes, or as text such as "24GB"."""

    vram_limit: int | None = given(
        None, 'device memory limit, such as "24GB" (default: all of it)', "--vram-limit",
        option_help="Device memory limit, such as 24GB (default: all of it).", metavar="SIZE", short=BYTES,
        keyword="load", validator=Between(1, math.inf),
    )  # fmt: skip
    ram_limit: int | None = given(
        None, 'host memory limit, such as "32GB" (default: all of it)', "--ram-limit",
        option_help="Host memory limit, such as 32GB (default: all of it).", metavar="SIZE", short=BYTES,
        keyword="load", validator=Between(1, math.inf),
    )  # fmt: skip
    copy_speed: int | None = given(
        None, 'bandwidth from host memory to the device, in bytes per second, such as "25GB"; for forecasts',
        short=BYTES, validator=Between(1, math.inf),
    )  # fmt: skip
    disk_speed: int | None = given(
        None, 'read speed of the disk of the model, in bytes per second, such as "3GB"; for forecasts',
        short=BYTES, validator=Between(1, math.inf),
    )  # fmt: skip
    compute_speed: float | None = given(
        None, "sustained compute speed of the device, in TFLOPS; for forecasts",
        validator=Between(0, math.inf, above=True),
    )  # fmt: skip


@frozen(kw_only=True)
class LoraConfig:
    """One LoRA file, and how it is applied.

    Raises ``ValueError`` for a value out of range, and for ``alpha_override`` without ``alpha``.
    """

    path: str = field(metadata=declared("LoRA file"))
    strength: float = given(1.0, "factor applied in addition to alpha / rank")
    alpha: float | None = given(
        None, "alpha if the file has none or is ambiguous", validator=Between(0, math.inf, above=True),
    )  # fmt: skip
    alpha_override: bool = given(False, "use alpha in place of the alphas in the file")
    name: str | None = given(
        None, "target network of a model with two experts (high_noise_model, low_noise_model, both)"
    )

    @alpha_override.validator
    def _has_alpha(self, _attribute: Any, value: bool) -> None:
        if value and self.alpha is None:
            raise ValueError("'alpha_override' requires 'alpha'")


@frozen(kw_only=True)
class OutputConfig:
    """Where and how the result is written."""

    path: str | None = given(
        None, "output file (.mp4, or .png for one frame), or a folder of PNGs", "--output", "--save_result_path",
        option_help="Output file (.mp4, or .png for one frame), or a folder of PNGs (ending in /).", metavar="FILE",
        flat="save_result_path",
    )  # fmt: skip
    record: bool = given(
        True, "write the run record next to the result and into it", "--no-record",
        option_help="Do not write a run record.",
    )  # fmt: skip
    crf: int = given(18, "H.264 quality (CRF); lower is better", validator=Between(0, 51))
    overwrite: bool = given(
        True, "replace an existing result; false: fail", "--no-overwrite",
        option_help="Fail if the output exists (default: replace it as a whole).",
    )  # fmt: skip


@frozen(kw_only=True)
class RunConfig:
    """The complete configuration of a run."""

    model_path: str | None = given(None, "model folder", "--model-path", "--model_path", metavar="DIR")
    model: Section = given(
        attrs.Factory(lambda: Section(use=("auto",))), "model family; auto: detected from the files", "--model",
        "--model_cls", option_help="Model family (default: detected from the files).", metavar="NAME", keyword="load",
        flat="model_cls",
    )  # fmt: skip
    task: str | None = given(
        None, f"task ({', '.join(catalog.tasks())}); default: the only one of the model", "--task",
        option_help=f"Task ({', '.join(catalog.tasks())}).", metavar="TASK", keyword="load",
    )  # fmt: skip
    prompt: str | None = given(None, "text prompt", "--prompt", keyword="request")
    negative_prompt: str | None = given(
        None, "negative prompt (default: the official one of the model; empty: none)",
        "--negative-prompt", "--negative_prompt",
        option_help="Negative prompt (default: the official one of the model; empty: none).",
        keyword="request",
    )  # fmt: skip
    dtype: Dtype = given(
        "auto", "compute dtype; auto: bfloat16 on CUDA, float32 on CPU", "--dtype",
        option_help="Compute dtype (bfloat16, float16, float32; default: bfloat16 on CUDA, float32 on CPU).",
        metavar="NAME", keyword="load",
    )  # fmt: skip
    device: str = given(
        "auto", "device (auto, cpu, cuda, cuda:N)", "--device", option_help="Device (auto, cpu, cuda, cuda:N).",
        metavar="NAME", keyword="load",
    )  # fmt: skip
    attention: Section = given(
        attrs.Factory(lambda: Section(use=("auto",))), "attention kernel", "--attention",
        option_help="Attention kernel, or several in order of preference.", keyword="load",
    )  # fmt: skip
    quantizer: Section | None = given(
        None, "kernel for quantized weights", "--quantizer",
        option_help="Kernel for fp8 or int8 weights; unquantized weights are quantized while they are loaded.",
        keyword="load",
    )  # fmt: skip
    offloader: Section = given(
        attrs.Factory(lambda: Section(use=("none",))), "where idle weights are kept", "--offloader",
        option_help=f"Where idle weights are kept (none, sequential, {', '.join(catalog.first_party('offloader'))}; "
        "auto: the cheapest that fits the memory limits; default: none).",
        keyword="load",
    )  # fmt: skip
    memory: MemoryConfig = given(attrs.Factory(MemoryConfig), "memory limits, respected by offloader=auto")
    lora_applier: Section = given(
        attrs.Factory(lambda: Section(use=("merge",))), "how LoRA files are applied", "--lora-applier",
        option_help="How LoRA files are applied (merge: into the weights; dynamic: kept separate).", keyword="load",
    )  # fmt: skip
    scheduler: Section | None = given(
        None, "timesteps and update rule (default: those of the model)", "--scheduler",
        option_help="Sampler: timesteps and update rule (default: that of the model).", metavar="NAME",
        keyword="request",
    )  # fmt: skip
    components: Mapping[str, ComponentConfig] = given(
        attrs.Factory(dict),
        "overrides by component: dit (both experts, if there are two), high_noise, low_noise, text_encoder, "
        "image_encoder, vae",
        keyword="load",
    )
    sampling: SamplingConfig = given(attrs.Factory(SamplingConfig), "sampling parameters")
    inputs: InputsConfig = given(attrs.Factory(InputsConfig), "input images and videos")
    loras: tuple[LoraConfig, ...] = given(
        (), "LoRA files, applied in order", "--lora",
        option_help="LoRA file; the prefix selects one of two experts. Repeatable.",
        metavar="[high:|low:|both:]PATH[:STRENGTH]", read=parse_lora_option, multiple=True, keyword="load",
        flat="lora_configs",
    )  # fmt: skip
    strict_lora: bool = given(
        False, "fail if any part of a LoRA file has no effect, instead of warning", "--strict-lora",
        option_help="Fail if any part of a LoRA file has no effect, instead of warning.", keyword="load",
    )  # fmt: skip
    output: OutputConfig = given(attrs.Factory(OutputConfig), "where and how the result is written")
