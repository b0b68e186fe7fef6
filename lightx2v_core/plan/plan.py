"""The plan of a run: choices, reasons and resource forecasts. Plain data that can be printed, stored and sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, field, frozen

from lightx2v_core.spec.context import Device
from lightx2v_core.spec.recognition import Geometry, SizeRules, Stage
from lightx2v_core.spec.request import Request


@frozen(kw_only=True)
class PlannedComponent:
    """A component, its files, the rule that chose them, and its memory use. Sizes in bytes."""

    name: str
    summary: str
    files: tuple[str, ...]
    rule: str
    #: naming scheme of the tensors: ``official``, ``diffusers``, ``comfyui``, ...
    layout: str
    tensors: int
    parameters: int
    stored: int
    precision: str
    #: the format of quantized weights, empty when there are none
    scheme: str
    #: other candidate files
    passed_over: tuple[str, ...]
    #: bytes of the files that loading reads
    read: int
    #: forecast of the weights in the compute dtype, and of peak activations
    weights: int
    activations: int


@frozen(kw_only=True)
class PlannedAdapter:
    """A LoRA file on one component: family, strength, and the tensors that have an effect there."""

    path: str
    component: str
    component_why: str
    strength: float
    #: naming scheme of its tensors
    family: str
    #: type of change -> count
    kinds: Mapping[str, int]
    ranks: tuple[int, ...]
    #: alphas of the file as text, empty when it has none
    file_alpha: str
    #: source of the alpha, and its divisor
    alpha_from: str = "of the file / rank"
    #: alpha of the configuration
    alpha: float | None
    alpha_override: bool
    #: component that the file itself names
    hint: str | None
    hint_why: str
    tensors: int
    #: number of tensors of the component that it changes
    changed: int
    bytes: int
    #: tensor names of the file: with an effect, without a counterpart, and with a wrong shape, the latter two with
    #: reasons
    matched: tuple[str, ...]
    unmatched: Mapping[str, str]
    mismatched: Mapping[str, str]

    @property
    def scale(self) -> str:
        """Describe the source of the scale, alpha / rank."""
        if self.alpha is not None and (self.alpha_override or not self.file_alpha):
            return f"alpha {self.alpha:g} of the configuration / rank"
        return f"alpha {self.file_alpha} {self.alpha_from}" if self.file_alpha else "1 (no alpha)"


@frozen(kw_only=True)
class Choice:
    """A selected implementation, the reason, and rejected candidates with their reasons."""

    kind: str
    use: str
    why: str
    rejected: Mapping[str, tuple[str, ...]]
    options: Mapping[str, object]


@frozen(kw_only=True)
class KernelUse:
    """The parameters of a kernel on which its correctness may depend. Each combination is proved separately."""

    #: attention: head size in elements
    head_dim: int = 0
    #: quantizers: format of a weight and, for values packed in blocks, values and bytes of a block
    format: str = ""
    block: tuple[int, int] | None = None


@frozen(kw_only=True)
class MemoryForecast:
    """A forecast of memory use, in bytes, and of the cost of moving weights."""

    device_weights: int
    device_peak: int
    host_peak: int
    device_total: int
    #: limits of the configuration; None: no limit
    device_limit: int | None = None
    host_limit: int | None = None
    #: bytes copied to the device or read from a disk in each step
    moved: int = 0
    #: compute time of a step in seconds (linear layers only), and the time that moving adds
    computing: float = 0.0
    exposed: float = 0.0
    #: seconds that moving takes outside of the steps of a request
    switching: float = 0.0
    #: bytes on disk for computed weights
    scratch: int = 0
    #: descriptions of what the offloaders do
    details: tuple[str, ...] = ()

    @property
    def impossible(self) -> bool:
        """Return True if the weights alone exceed the memory of the device."""
        return 0 < self.device_total < self.device_weights

    @property
    def excess(self) -> str:
        """Describe the limit of the configuration that is exceeded; empty when none is."""
        for what, option, peak, limit in (
            ("device", "--vram-limit", self.device_peak, self.device_limit),
            ("host", "--ram-limit", self.host_peak, self.host_limit),
        ):
            if limit is not None and peak > limit:
                return f"forecast {what} memory of {peak / 1e9:.2f} GB exceeds {option} {limit / 1e9:.2f} GB"
        return ""


@frozen(kw_only=True)
class PlannedOutput:
    """The destination of the result. ``kind`` is ``mp4``, ``png`` (one frame) or ``frames`` (a folder of PNGs)."""

    path: str
    kind: str
    record: bool
    crf: int
    #: video whose sound track is copied to the result
    audio: str | None = None
    #: existing files or folders that are replaced
    replaces: tuple[str, ...] = ()
    #: whether existing files may be replaced
    overwrite: bool = True


@frozen(kw_only=True)
class Plan:
    """The complete plan of a run."""

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
    #: request value -> its origin: a default, an option, a key of a file
    origins: Mapping[str, str]
    geometry: Geometry
    #: denoising stages; one, unless the model changes the resolution
    stages: tuple[Stage, ...]
    memory: MemoryForecast
    output: PlannedOutput | None
    rejected_models: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    plugins: Mapping[str, str]
    #: LoRA files in the order they are applied
    adapters: tuple[PlannedAdapter, ...] = ()
    #: number of experts; a request may give a guidance scale for each
    experts: int = 1
    #: other supported sizes and lengths
    sizes: SizeRules = field(factory=SizeRules)

    @property
    def parameters(self) -> int:
        return sum(component.parameters for component in self.components)

    @property
    def read(self) -> int:
        """Return the number of bytes that loading reads."""
        return sum(component.read for component in self.components)

    def choice(self, kind: str) -> Choice:
        return next(choice for choice in self.choices if choice.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data for ``json.dumps``."""
        return asdict(self)
