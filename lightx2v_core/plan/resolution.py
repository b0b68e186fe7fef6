"""The steps from a configuration to a plan, as values: each holds what its step found out, and none is changed later.

``resolve`` computes them in this order; who asks for another request or other LoRA files starts again at a later one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.lora_fit import AdapterFit
from lightx2v_core.plan.plan import MemoryForecast, Plan
from lightx2v_core.plan.quantization import Quantization
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.spec.context import Budget, BuildContext
from lightx2v_core.spec.memory import Workload
from lightx2v_core.spec.recognition import Geometry
from lightx2v_core.spec.request import Request
from lightx2v_core.spec.specs import AttentionSpec, LoraApplierSpec, OffloaderSpec, SchedulerSpec


@frozen(kw_only=True)
class Location:
    """Where a run takes place: a configuration whose paths and names are files and plugins of this machine."""

    loaded: LoadedConfig
    registry: Registry
    #: the folder of the model
    folder: Path
    ctx: BuildContext
    device_why: str
    dtype_why: str
    #: of checkpoints that plugins bring, and of other names of models
    notes: tuple[str, ...]
    #: distribution -> version, of the core and the plugins
    versions: Mapping[str, str]


@frozen(kw_only=True)
class Subject:
    """The model of the folder, complete, and what it is asked to do."""

    match: ModelMatch
    task: str
    #: what the task starts from: paths, or images and tensors given in memory
    inputs: Mapping[str, object]
    #: of settings that mean another model
    notes: tuple[str, ...]


@frozen(kw_only=True)
class Adaptation:
    """LoRA files on a model, and what applies them."""

    #: the model with them, which may bring other defaults
    match: ModelMatch
    adapters: tuple[AdapterFit, ...]
    #: None when there is nothing to apply, and nobody asked for one
    applier: Implementation[LoraApplierSpec] | None


@frozen(kw_only=True)
class Setup:
    """What stays while a model is loaded: the model with its LoRA files, and the kernels that compute it."""

    task: str
    adaptation: Adaptation
    attention: Implementation[AttentionSpec]
    #: component -> what becomes of its layers
    quantization: Mapping[str, Quantization]
    notes: tuple[str, ...]

    @property
    def match(self) -> ModelMatch:
        """The model with its LoRA files."""
        return self.adaptation.match


@frozen(kw_only=True)
class RequestPlan:
    """One request with every value filled in, and where each came from."""

    request: Request
    geometry: Geometry
    origins: Mapping[str, str]
    scheduler: Implementation[SchedulerSpec]


@frozen(kw_only=True)
class MemoryPlan:
    """Where the weights of each component live, and what that takes."""

    workloads: Mapping[str, Workload]
    offloaders: Mapping[str, Implementation[OffloaderSpec]]
    budgets: Mapping[str, Budget]
    forecast: MemoryForecast


@frozen(kw_only=True)
class Resolution:
    """A plan, and the steps that led to it: what carrying it out in this process needs."""

    location: Location
    subject: Subject
    setup: Setup
    request: RequestPlan
    memory: MemoryPlan
    plan: Plan
