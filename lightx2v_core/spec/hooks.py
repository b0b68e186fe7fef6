"""The nine hooks. Each is called once for every plugin, at load, without arguments, and returns specs."""

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
    """Readers of weight files, chosen by file suffix."""
    return ()


@hookspec
def lightx2v_quantizers() -> Iterable[QuantizerSpec]:
    """Quantized linear layers, chosen by ``quantizer``."""
    return ()


@hookspec
def lightx2v_attention_backends() -> Iterable[AttentionSpec]:
    """Attention kernels, chosen by ``attention``."""
    return ()


@hookspec
def lightx2v_offloaders() -> Iterable[OffloaderSpec]:
    """Policies for where blocks live, chosen by ``offloader``."""
    return ()


@hookspec
def lightx2v_lora_appliers() -> Iterable[LoraApplierSpec]:
    """Ways to apply LoRA files, chosen by ``lora_applier``."""
    return ()


@hookspec
def lightx2v_schedulers() -> Iterable[SchedulerSpec]:
    """Timesteps and update rules, chosen by ``scheduler``."""
    return ()


@hookspec
def lightx2v_models() -> Iterable[ModelSpec]:
    """Model families, recognized by their checkpoints or chosen by ``model``."""
    return ()


@hookspec
def lightx2v_commands() -> Iterable[CommandSpec]:
    """Subcommands of ``lightx2v-core``."""
    return ()


@hookspec
def lightx2v_checkpoints() -> Iterable[CheckpointSpec]:
    """Checkpoints that come with the plugin, chosen by the first part of a path."""
    return ()


#: kind of implementation -> (hook, spec class); the kind is the word that messages and listings use
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
    """Name a kind that is given by its name or by the class of its specs."""
    return kind if isinstance(kind, str) else _KIND_OF[kind]
