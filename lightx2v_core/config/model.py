"""The configuration of a run. ``None`` means: not said, take the default of the model or the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen
from attrs import validators as v

from lightx2v_core.config.knob import BYTES, knob
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
        metadata=knob("a name, or names tried in order; name? is passed over where nothing is called so"),
    )
    options: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        metadata=knob(
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

    path: str | None = field(default=None, metadata=knob("file or folder to read it from"))
    precision: str | None = field(
        default=None,
        metadata=knob("which of several files or folders: original, fp8, int8, or a dtype"),
    )
    distilled: bool | None = field(
        default=None, metadata=knob("which of several networks: a distilled one, or an ordinary one")
    )
    assets: Mapping[str, str] = field(
        factory=dict,
        metadata=knob(
            "other files it needs, by their names, such as tokenizer: a file, or the folder it is in"
        ),
    )
    quantizer: Section | None = field(default=None, metadata=knob("quantizer of this component"))
    offloader: Section | None = field(default=None, metadata=knob("offloader of this component"))


@frozen(kw_only=True)
class MemoryConfig:
    """How much memory a run may take, and what forecasts of time go by. Sizes in bytes, or texts such as "24GB"."""

    vram_limit: int | None = field(
        default=None,
        validator=Between(1, math.inf),
        metadata=knob(
            'memory of the device that may be used: "24GB"; absent: all of it',
            "--vram-limit",
            option_help="Device memory to use, such as 24GB.",
            metavar="SIZE",
            short=BYTES,
            keyword="load",
        ),
    )
    ram_limit: int | None = field(
        default=None,
        validator=Between(1, math.inf),
        metadata=knob(
            'memory of the machine that may be used: "32GB"; absent: all of it',
            "--ram-limit",
            option_help="Memory of the machine to use, such as 32GB.",
            metavar="SIZE",
            short=BYTES,
            keyword="load",
        ),
    )
    copy_speed: int | None = field(
        default=None,
        validator=Between(1, math.inf),
        metadata=knob(
            'bytes a second from the machine\'s memory to the device: "25GB"; for forecasts', short=BYTES
        ),
    )
    disk_speed: int | None = field(
        default=None,
        validator=Between(1, math.inf),
        metadata=knob('bytes a second from the disk of the model: "3GB"; for forecasts', short=BYTES),
    )
    compute_speed: float | None = field(
        default=None,
        validator=Between(0, math.inf, above=True),
        metadata=knob("10^12 operations a second that the device reaches; for forecasts"),
    )


@frozen(kw_only=True)
class LoraConfig:
    """One LoRA file."""

    path: str = field(metadata=knob("the file"))
    strength: float = field(default=1.0, metadata=knob("factor on top of alpha / rank"))
    alpha: float | None = field(
        default=None,
        validator=Between(0, math.inf, above=True),
        metadata=knob("alpha when the file has none, or does not say it clearly"),
    )
    alpha_override: bool = field(default=False, metadata=knob("let alpha win over the alphas of the file"))
    name: str | None = field(
        default=None,
        metadata=knob("network it is for, where there are two: high_noise_model, low_noise_model or both"),
    )

    @alpha_override.validator
    def _has_alpha(self, _attribute: Any, value: bool) -> None:
        if value and self.alpha is None:
            raise ValueError("'alpha_override' needs an 'alpha' that wins")


@frozen(kw_only=True)
class OutputConfig:
    """Where and how the result is written."""

    path: str | None = field(
        default=None,
        metadata=knob(
            "an .mp4 file, a .png for one frame, or a folder of PNGs",
            "--output",
            "--save_result_path",
            option_help="An .mp4, a .png for one frame, or a folder (ending in /) of PNGs.",
            metavar="FILE",
            flat="save_result_path",
        ),
    )
    record: bool = field(
        default=True,
        metadata=knob(
            "write the run record beside the result and into it",
            "--no-record",
            option_help="Write no run record.",
        ),
    )
    crf: int = field(default=18, validator=Between(0, 51), metadata=knob("H.264 quality, lower is better"))
    overwrite: bool = field(
        default=True,
        metadata=knob(
            "replace a result that is there; false refuses",
            "--no-overwrite",
            option_help="Refuse an output that is there already; else it is replaced, as a whole.",
        ),
    )


@frozen(kw_only=True)
class RunConfig:
    """Everything that can be configured about a run."""

    model_path: str | None = field(
        default=None, metadata=knob("folder of the model", "--model-path", "--model_path", metavar="DIR")
    )
    model: Section = field(
        factory=lambda: Section(use=("auto",)),
        metadata=knob(
            "model family; auto recognizes it",
            "--model",
            "--model_cls",
            option_help="Model family; absent: recognized.",
            metavar="NAME",
            keyword="load",
            flat="model_cls",
        ),
    )
    task: str | None = field(
        default=None,
        metadata=knob(
            either(catalog.tasks()),
            "--task",
            option_help=f"{either(catalog.tasks())}.",
            metavar="TASK",
            keyword="load",
        ),
    )
    prompt: str | None = field(
        default=None, metadata=knob("prompt: what the video shows", "--prompt", keyword="request")
    )
    negative_prompt: str | None = field(
        default=None,
        metadata=knob(
            "negative prompt: what it should not show; absent: the model's official one; empty: none",
            "--negative-prompt",
            "--negative_prompt",
            option_help=(
                "Negative prompt: what it should not show; absent: the model's official one, empty: none."
            ),
            keyword="request",
        ),
    )
    dtype: Dtype = field(
        default="auto",
        metadata=knob(
            "compute dtype; auto: bfloat16 on CUDA, float32 on CPU",
            "--dtype",
            option_help="bfloat16, float16 or float32.",
            metavar="NAME",
            keyword="load",
        ),
    )
    device: str = field(
        default="auto",
        metadata=knob(
            "auto, cpu, cuda or cuda:N",
            "--device",
            option_help="auto, cpu, cuda or cuda:N.",
            metavar="NAME",
            keyword="load",
        ),
    )
    attention: Section = field(
        factory=lambda: Section(use=("auto",)),
        metadata=knob(
            "attention kernel",
            "--attention",
            option_help="Attention kernel, or several to try in order.",
            keyword="load",
        ),
    )
    quantizer: Section | None = field(
        default=None,
        metadata=knob(
            "kernel for quantized weights",
            "--quantizer",
            option_help=(
                "Kernel for weights in fp8 or int8; plain weights are quantized with it while they are read."
            ),
            keyword="load",
        ),
    )
    offloader: Section = field(
        factory=lambda: Section(use=("none",)),
        metadata=knob(
            "where weights live while they are not used",
            "--offloader",
            option_help=(
                "Where weights live while they are not used; auto: the least costly that fits the limits."
            ),
            keyword="load",
        ),
    )
    memory: MemoryConfig = field(
        factory=MemoryConfig, metadata=knob("limits of memory, which offloader=auto keeps")
    )
    lora_applier: Section = field(
        factory=lambda: Section(use=("merge",)),
        metadata=knob(
            "how LoRA files are applied",
            "--lora-applier",
            option_help="merge: LoRA files become part of the weights; dynamic: they stay beside them.",
            keyword="load",
        ),
    )
    scheduler: Section | None = field(
        default=None,
        metadata=knob(
            "timesteps and update rule; absent: the model's",
            "--scheduler",
            option_help="Timesteps and update rule.",
            metavar="NAME",
            keyword="request",
        ),
    )
    components: Mapping[str, ComponentConfig] = field(
        factory=dict,
        metadata=knob(
            "overrides for dit (both experts where there are two), high_noise, low_noise, text_encoder, "
            "image_encoder, vae",
            keyword="load",
        ),
    )
    sampling: SamplingConfig = field(factory=SamplingConfig, metadata=knob("how to sample"))
    inputs: InputsConfig = field(factory=InputsConfig, metadata=knob("images and videos to start from"))
    loras: tuple[LoraConfig, ...] = field(
        default=(),
        metadata=knob(
            "LoRA files, applied in order",
            "--lora",
            option_help="LoRA file; give it again for more. In front: which of two experts it is for.",
            metavar="[high:|low:|both:]PATH[:STRENGTH]",
            read=parse_lora_option,
            multiple=True,
            keyword="load",
            flat="lora_configs",
        ),
    )
    strict_lora: bool = field(
        default=False,
        metadata=knob(
            "refuse a LoRA file of which a part has no effect, instead of warning",
            "--strict-lora",
            option_help="Refuse a LoRA file of which a part has no effect.",
            keyword="load",
        ),
    )
    output: OutputConfig = field(factory=OutputConfig, metadata=knob("where and how the result is written"))
