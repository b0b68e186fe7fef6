"""Immutable results of the steps from a configuration to a plan.

``resolve`` computes them in this order. Another request or other LoRA files repeat only the later steps.
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
    """The environment of a run: a configuration with paths and names resolved on this machine, and the device."""

    loaded: LoadedConfig
    registry: Registry
    #: model folder
    folder: Path
    ctx: BuildContext
    device_why: str
    dtype_why: str
    #: notes on checkpoints that plugins provide, and on model aliases
    notes: tuple[str, ...]
    #: distribution -> version, for the core and the plugins
    versions: Mapping[str, str]


@frozen(kw_only=True)
class Subject:
    """The recognized, complete model of the folder, with the task and its inputs."""

    match: ModelMatch
    task: str
    #: input name -> a path, or an image or tensor in memory
    inputs: Mapping[str, object]
    #: notes on settings of other models
    notes: tuple[str, ...]


@frozen(kw_only=True)
class Adaptation:
    """LoRA files on a model, and their applier."""

    #: the model with its LoRA files, which may change defaults
    match: ModelMatch
    adapters: tuple[AdapterFit, ...]
    #: None if there are no LoRA files and no applier is configured
    applier: Implementation[LoraApplierSpec] | None


@frozen(kw_only=True)
class Setup:
    """The choices that hold while a model is loaded: the model with its LoRA files, and its kernels."""

    task: str
    adaptation: Adaptation
    attention: Implementation[AttentionSpec]
    #: component -> quantization of its layers
    quantization: Mapping[str, Quantization]
    notes: tuple[str, ...]

    @property
    def match(self) -> ModelMatch:
        """Return the model with its LoRA files."""
        return self.adaptation.match


@frozen(kw_only=True)
class RequestPlan:
    """One request with every value filled in, and the origin of each value."""

    request: Request
    geometry: Geometry
    origins: Mapping[str, str]
    scheduler: Implementation[SchedulerSpec]


@frozen(kw_only=True)
class MemoryPlan:
    """The offloader of each component, and the memory forecast."""

    workloads: Mapping[str, Workload]
    offloaders: Mapping[str, Implementation[OffloaderSpec]]
    budgets: Mapping[str, Budget]
    forecast: MemoryForecast


@frozen(kw_only=True)
class Resolution:
    """A plan, and the results of the steps that led to it, which a run in this process needs."""

    location: Location
    subject: Subject
    setup: Setup
    request: RequestPlan
    memory: MemoryPlan
    plan: Plan
