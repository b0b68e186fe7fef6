"""What plugin authors import. Importing it imports no torch.

Everything a plugin may depend on is here or in ``lightx2v_core.testing``; other modules may change at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightx2v_core.errors import (
    Cancelled,
    CheckpointError,
    ConfigError,
    LightX2VError,
    OutputError,
    PluginError,
    RequestError,
    RunError,
    suggestion,
)
from lightx2v_core.hookspecs import hookimpl
from lightx2v_core.specs import (
    LORA_KINDS,
    AttentionSpec,
    Budget,
    BuildContext,
    CheckpointSpec,
    CommandSpec,
    Device,
    LoraApplierSpec,
    ModelSpec,
    NoOptions,
    OffloaderSpec,
    QuantizerOptions,
    QuantizerSpec,
    SchedulerSpec,
    Spec,
    Speeds,
    WeightLoaderSpec,
)

if TYPE_CHECKING:
    from lightx2v_core.catalogue import missing
    from lightx2v_core.claims import distilled_by, named_expert, sampling_steps, says_distilled
    from lightx2v_core.cli.show_plan import plan_text
    from lightx2v_core.codes import decode_weight, encode_weight, token_codes
    from lightx2v_core.events import (
        Emit,
        Event,
        PhaseDone,
        PhaseStarted,
        Progress,
        Saved,
        StepDone,
        Warned,
    )
    from lightx2v_core.facts import (
        CheckpointFacts,
        Defaults,
        Geometry,
        MemoryNeed,
        OffloadForecast,
        Recognition,
        SchedulerContext,
        SizeRules,
        Stage,
        Target,
        Workload,
    )
    from lightx2v_core.inspection.inspect import inspect
    from lightx2v_core.inspection.report import Inspection, LoraReport
    from lightx2v_core.lora.delta import changed, delta, read_factors
    from lightx2v_core.parts import ComponentSpec, KeyMap, Repository, RepositoryFiles, TaskSpec
    from lightx2v_core.plan import Plan
    from lightx2v_core.planning import Planner, plan_run, read_config
    from lightx2v_core.plugins import PluginSet, Provided, load_plugins
    from lightx2v_core.positioned import OpenFiles, PositionedSource
    from lightx2v_core.protocols import (
        Adapter,
        Attention,
        Change,
        Conditions,
        DirectSource,
        LoadedComponent,
        LoraApplier,
        ModelParts,
        ModuleTensor,
        ModuleWeights,
        Offloader,
        Quantizer,
        Scheduler,
        Segment,
        Step,
        VideoModel,
        WeightSource,
    )
    from lightx2v_core.requests import Request
    from lightx2v_core.run import Pipeline, Video, load
    from lightx2v_core.stored import CodeQuantizer, StoredLinear
    from lightx2v_core.tensors import DTYPE_BYTES, Header, LayerFormat, TensorInfo
    from lightx2v_core.uncached import open_uncached, read_at

#: what is only needed at run time, resolved when it is asked for: listing plugins goes without
_LATER = {
    **dict.fromkeys(
        ("Emit", "Event", "PhaseDone", "PhaseStarted", "Progress", "Saved", "StepDone", "Warned"), "events"
    ),
    "Request": "requests",
    # what front ends stand on, like `lightx2v_core.load`
    **dict.fromkeys(("Pipeline", "Video", "load"), "run"),
    **dict.fromkeys(("PluginSet", "Provided", "load_plugins"), "plugins"),
    **dict.fromkeys(("Inspection", "LoraReport"), "inspection.report"),
    "inspect": "inspection.inspect",
    "Plan": "plan",
    **dict.fromkeys(("Planner", "plan_run", "read_config"), "planning"),
    "plan_text": "cli.show_plan",
    "missing": "catalogue",
    **dict.fromkeys(("distilled_by", "named_expert", "sampling_steps", "says_distilled"), "claims"),
    **dict.fromkeys(
        (
            "CheckpointFacts",
            "Defaults",
            "Geometry",
            "MemoryNeed",
            "OffloadForecast",
            "Recognition",
            "SchedulerContext",
            "SizeRules",
            "Stage",
            "Target",
            "Workload",
        ),
        "facts",
    ),
    **dict.fromkeys(("CodeQuantizer", "StoredLinear"), "stored"),
    **dict.fromkeys(("OpenFiles", "PositionedSource"), "positioned"),
    **dict.fromkeys(("open_uncached", "read_at"), "uncached"),
    **dict.fromkeys(("decode_weight", "encode_weight", "token_codes"), "codes"),
    **dict.fromkeys(
        (
            "Adapter",
            "Attention",
            "Change",
            "Conditions",
            "DirectSource",
            "LoadedComponent",
            "LoraApplier",
            "ModelParts",
            "ModuleTensor",
            "ModuleWeights",
            "Offloader",
            "Quantizer",
            "Scheduler",
            "Segment",
            "Step",
            "VideoModel",
            "WeightSource",
        ),
        "protocols",
    ),
    **dict.fromkeys(("DTYPE_BYTES", "Header", "LayerFormat", "TensorInfo"), "tensors"),
    **dict.fromkeys(("ComponentSpec", "KeyMap", "Repository", "RepositoryFiles", "TaskSpec"), "parts"),
    **dict.fromkeys(("changed", "delta", "read_factors"), "lora.delta"),
}

__all__ = [
    "DTYPE_BYTES",
    "LORA_KINDS",
    "Adapter",
    "Attention",
    "AttentionSpec",
    "Budget",
    "BuildContext",
    "Cancelled",
    "Change",
    "CheckpointError",
    "CheckpointFacts",
    "CheckpointSpec",
    "CodeQuantizer",
    "CommandSpec",
    "ComponentSpec",
    "Conditions",
    "ConfigError",
    "Defaults",
    "Device",
    "DirectSource",
    "Emit",
    "Event",
    "Geometry",
    "Header",
    "Inspection",
    "KeyMap",
    "LayerFormat",
    "LightX2VError",
    "LoadedComponent",
    "LoraApplier",
    "LoraApplierSpec",
    "LoraReport",
    "MemoryNeed",
    "ModelParts",
    "ModelSpec",
    "ModuleTensor",
    "ModuleWeights",
    "NoOptions",
    "OffloadForecast",
    "Offloader",
    "OffloaderSpec",
    "OpenFiles",
    "OutputError",
    "PhaseDone",
    "PhaseStarted",
    "Pipeline",
    "Plan",
    "Planner",
    "PluginError",
    "PluginSet",
    "PositionedSource",
    "Progress",
    "Provided",
    "Quantizer",
    "QuantizerOptions",
    "QuantizerSpec",
    "Recognition",
    "Repository",
    "RepositoryFiles",
    "Request",
    "RequestError",
    "RunError",
    "Saved",
    "Scheduler",
    "SchedulerContext",
    "SchedulerSpec",
    "Segment",
    "SizeRules",
    "Spec",
    "Speeds",
    "Stage",
    "Step",
    "StepDone",
    "StoredLinear",
    "Target",
    "TaskSpec",
    "TensorInfo",
    "Video",
    "VideoModel",
    "Warned",
    "WeightLoaderSpec",
    "WeightSource",
    "Workload",
    "changed",
    "decode_weight",
    "delta",
    "distilled_by",
    "encode_weight",
    "hookimpl",
    "inspect",
    "load",
    "load_plugins",
    "missing",
    "named_expert",
    "open_uncached",
    "plan_run",
    "plan_text",
    "read_at",
    "read_config",
    "read_factors",
    "sampling_steps",
    "says_distilled",
    "suggestion",
    "token_codes",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"lightx2v_core.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
