"""The nine hooks. Each is called once per plugin, at load time, without arguments, and returns specs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from lightx2v_core.spec.specs import (
    AttentionSpec,
    CheckpointSpec,
    CommandSpec,
    LoraApplierSpec,
    ModelSpec,
    OffloaderSpec,
    QuantizerSpec,
    SchedulerSpec,
    Spec,
    WeightLoaderSpec,
)

hookspec = pluggy.HookspecMarker("lightx2v_core")
hookimpl = pluggy.HookimplMarker("lightx2v_core")


@hookspec
def lightx2v_weight_loaders() -> Iterable[WeightLoaderSpec]:
    """Return readers of weight files, selected by file suffix."""
    return ()


@hookspec
def lightx2v_quantizers() -> Iterable[QuantizerSpec]:
    """Return implementations of quantized linear layers, selected by ``quantizer``."""
    return ()


@hookspec
def lightx2v_attention_backends() -> Iterable[AttentionSpec]:
    """Return attention kernels, selected by ``attention``."""
    return ()


@hookspec
def lightx2v_offloaders() -> Iterable[OffloaderSpec]:
    """Return placement policies for blocks, selected by ``offloader``."""
    return ()


@hookspec
def lightx2v_lora_appliers() -> Iterable[LoraApplierSpec]:
    """Return methods of applying LoRA files, selected by ``lora_applier``."""
    return ()


@hookspec
def lightx2v_schedulers() -> Iterable[SchedulerSpec]:
    """Return samplers (timesteps and update rules), selected by ``scheduler``."""
    return ()


@hookspec
def lightx2v_models() -> Iterable[ModelSpec]:
    """Return model families, recognized by their checkpoints or selected by ``model``."""
    return ()


@hookspec
def lightx2v_commands() -> Iterable[CommandSpec]:
    """Return subcommands of ``lightx2v-core``."""
    return ()


@hookspec
def lightx2v_checkpoints() -> Iterable[CheckpointSpec]:
    """Return checkpoints bundled with the plugin, selected by the first part of a path."""
    return ()


#: kind of implementation -> (hook, spec class); messages and listings use the kind as a word
KINDS: dict[str, tuple[str, type[Any]]] = {
    "weight_loader": ("lightx2v_weight_loaders", WeightLoaderSpec),
    "quantizer": ("lightx2v_quantizers", QuantizerSpec),
    "attention": ("lightx2v_attention_backends", AttentionSpec),
    "offloader": ("lightx2v_offloaders", OffloaderSpec),
    "lora_applier": ("lightx2v_lora_appliers", LoraApplierSpec),
    "scheduler": ("lightx2v_schedulers", SchedulerSpec),
    "model": ("lightx2v_models", ModelSpec),
    "command": ("lightx2v_commands", CommandSpec),
    "checkpoint": ("lightx2v_checkpoints", CheckpointSpec),
}
_KIND_OF: dict[type[Any], str] = {spec: kind for kind, (_, spec) in KINDS.items()}


def kind_of(kind: str | type[Spec]) -> str:
    """Return the name of a kind, given by that name or by its spec class."""
    return kind if isinstance(kind, str) else _KIND_OF[kind]
