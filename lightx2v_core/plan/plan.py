"""What a run will do, why, and what it takes. Plain data: it can be printed, stored and sent to another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, field, frozen

from lightx2v_core.spec.context import Device
from lightx2v_core.spec.recognition import Geometry, SizeRules, Stage
from lightx2v_core.spec.request import Request


@frozen(kw_only=True)
class PlannedComponent:
    """A component, its files, the rule that chose them, and what it takes. Sizes in bytes."""

    name: str
    summary: str
    files: tuple[str, ...]
    rule: str
    #: whose names the files use: ``official``, ``diffusers``, ``comfyui``, ...
    layout: str
    tensors: int
    parameters: int
    stored: int
    precision: str
    #: the format of quantized weights, empty when there are none
    scheme: str
    #: other files that could have been it
    passed_over: tuple[str, ...]
    #: bytes of the files that loading reads
    read: int
    #: weights when loaded in the compute dtype, and activations at their peak (a forecast)
    weights: int
    activations: int


@frozen(kw_only=True)
class PlannedAdapter:
    """A LoRA file on one component: what it is, how strong, and which of its tensors have an effect there."""

    path: str
    component: str
    component_why: str
    strength: float
    #: the family of names it uses
    family: str
    #: kind of change -> how many
    kinds: Mapping[str, int]
    ranks: tuple[int, ...]
    #: the alphas of the file in words, empty when it has none; and that of the configuration
    file_alpha: str
    #: who says that alpha, and what divides it
    alpha_from: str = "of the file / rank"
    alpha: float | None
    alpha_override: bool
    #: the component that the file itself seems to be for
    hint: str | None
    hint_why: str
    tensors: int
    #: tensors of the component that it changes
    changed: int
    bytes: int
    #: names of the file: those that have an effect, those that belong nowhere and those that do not fit, with reasons
    matched: tuple[str, ...]
    unmatched: Mapping[str, str]
    mismatched: Mapping[str, str]

    @property
    def scale(self) -> str:
        """Where alpha / rank comes from, in words."""
        if self.alpha is not None and (self.alpha_override or not self.file_alpha):
            return f"alpha {self.alpha:g} of the configuration / rank"
        return f"alpha {self.file_alpha} {self.alpha_from}" if self.file_alpha else "1 (no alpha)"


@frozen(kw_only=True)
class Choice:
    """An implementation that was selected, why, and what was rejected for which reasons."""

    kind: str
    use: str
    why: str
    rejected: Mapping[str, tuple[str, ...]]
    options: Mapping[str, object]


@frozen(kw_only=True)
class KernelUse:
    """What a run asks of a kernel, as far as whether it is right may depend on it: proofs are made for each."""

    #: of attention
    head_dim: int = 0
    #: of a quantizer: the format of a weight and, for values packed in blocks, values and bytes of a block
    format: str = ""
    block: tuple[int, int] | None = None


@frozen(kw_only=True)
class MemoryForecast:
    """What a run takes: bytes on the device and in host memory at their peak, and what moving weights costs."""

    device_weights: int
    device_peak: int
    host_peak: int
    device_total: int
    #: what the configuration allows; None: everything there is
    device_limit: int | None = None
    host_limit: int | None = None
    #: bytes that are copied to the device or read from a disk in each step
    moved: int = 0
    #: seconds of computing of a step (linear layers only), and what moving adds to them
    computing: float = 0.0
    exposed: float = 0.0
    #: seconds of a request that moving takes outside of its steps
    switching: float = 0.0
    #: disk space for computed weights
    scratch: int = 0
    #: how an offloader goes about it, one text each
    details: tuple[str, ...] = ()

    @property
    def impossible(self) -> bool:
        """Whether the weights alone are more than the device has."""
        return 0 < self.device_total < self.device_weights

    @property
    def excess(self) -> str:
        """Which limit of the configuration is exceeded, in words; empty when none is."""
        for what, option, peak, limit in (
            ("device", "--vram-limit", self.device_peak, self.device_limit),
            ("host", "--ram-limit", self.host_peak, self.host_limit),
        ):
            if limit is not None and peak > limit:
                return f"the forecast of {what} memory is {peak / 1e9:.2f} GB and {option} is {limit / 1e9:.2f} GB"
        return ""


@frozen(kw_only=True)
class PlannedOutput:
    """Where the result goes: ``kind`` is ``mp4``, ``png`` (one frame) or ``frames`` (a folder of PNGs)."""

    path: str
    kind: str
    record: bool
    crf: int
    #: a video whose sound goes into the result
    audio: str | None = None
    #: what of the same name is replaced, as a whole
    replaces: tuple[str, ...] = ()
    #: whether it may be
    overwrite: bool = True


@frozen(kw_only=True)
class Plan:
    """The whole answer to "what will this do"."""

    model: str
    variant: str
    summary: str
    model_path: str
    task: str
    device: Device
    device_why: str
    dtype: str
    dtype_why: str
    components: tuple[PlannedComponent, ...]
    choices: tuple[Choice, ...]
    request: Request
    #: which of the request's values are the model's defaults, and where the others came from
    origins: Mapping[str, str]
    geometry: Geometry
    #: sizes that the denoising goes through; one, unless the model changes the resolution
    stages: tuple[Stage, ...]
    memory: MemoryForecast
    output: PlannedOutput | None
    rejected_models: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    plugins: Mapping[str, str]
    #: LoRA files in the order they are applied
    adapters: tuple[PlannedAdapter, ...] = ()
    #: networks that take turns; a request may give a guidance scale for each
    experts: int = 1
    #: what sizes and lengths there are besides
    sizes: SizeRules = field(factory=SizeRules)

    @property
    def parameters(self) -> int:
        return sum(component.parameters for component in self.components)

    @property
    def read(self) -> int:
        """Bytes that loading reads."""
        return sum(component.read for component in self.components)

    def choice(self, kind: str) -> Choice:
        return next(choice for choice in self.choices if choice.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``."""
        return asdict(self)
