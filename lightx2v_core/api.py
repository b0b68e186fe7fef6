"""What plugin authors import. Importing it imports no torch.

Everything a plugin may depend on is here or in ``lightx2v_core.testing``; other modules may change at any time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightx2v_core.errors import (
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
    ComponentSpec,
    Device,
    KeyMap,
    LoraApplierSpec,
    ModelSpec,
    NoOptions,
    OffloaderSpec,
    QuantizerOptions,
    QuantizerSpec,
    Repository,
    RepositoryFiles,
    SchedulerSpec,
    Spec,
    Speeds,
    TaskSpec,
    WeightLoaderSpec,
)

if TYPE_CHECKING:
    from lightx2v_core.codes import decode_weight, encode_weight, token_codes
    from lightx2v_core.events import Emit, Event, PhaseDone, PhaseStarted, Progress, Warned
    from lightx2v_core.facts import (
        CheckpointFacts,
        Defaults,
        Geometry,
        MemoryNeed,
        OffloadForecast,
        Recognition,
        SchedulerContext,
        Stage,
        Target,
        Workload,
    )
    from lightx2v_core.lora.delta import changed, delta, read_factors
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
    from lightx2v_core.stored import CodeQuantizer, StoredLinear
    from lightx2v_core.tensors import DTYPE_BYTES, Header, LayerFormat, TensorInfo

#: what is only needed at run time, resolved when it is asked for: listing plugins goes without
_LATER = {
    **dict.fromkeys(("Emit", "Event", "PhaseDone", "PhaseStarted", "Progress", "Warned"), "events"),
    "Request": "requests",
    **dict.fromkeys(
        (
            "CheckpointFacts",
            "Defaults",
            "Geometry",
            "MemoryNeed",
            "OffloadForecast",
            "Recognition",
            "SchedulerContext",
            "Stage",
            "Target",
            "Workload",
        ),
        "facts",
    ),
    **dict.fromkeys(("CodeQuantizer", "StoredLinear"), "stored"),
    **dict.fromkeys(("OpenFiles", "PositionedSource"), "positioned"),
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
    "KeyMap",
    "LayerFormat",
    "LightX2VError",
    "LoadedComponent",
    "LoraApplier",
    "LoraApplierSpec",
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
    "PluginError",
    "PositionedSource",
    "Progress",
    "Quantizer",
    "QuantizerOptions",
    "QuantizerSpec",
    "Recognition",
    "Repository",
    "RepositoryFiles",
    "Request",
    "RequestError",
    "RunError",
    "Scheduler",
    "SchedulerContext",
    "SchedulerSpec",
    "Segment",
    "Spec",
    "Speeds",
    "Stage",
    "Step",
    "StoredLinear",
    "Target",
    "TaskSpec",
    "TensorInfo",
    "VideoModel",
    "Warned",
    "WeightLoaderSpec",
    "WeightSource",
    "Workload",
    "changed",
    "decode_weight",
    "delta",
    "encode_weight",
    "hookimpl",
    "read_factors",
    "suggestion",
    "token_codes",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"lightx2v_core.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
