"""Knowledge that contract suites need about an implementation, and the module of its plugin that provides it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from lightx2v_core.api import ModelSpec, Plugin, Spec, WeightLoaderSpec
from lightx2v_devkit.distributions import CORE

#: file suffixes that the plain suite can write
_WRITABLE = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt"})


def contracts_module(plugin: Plugin) -> str | None:
    """Return the name of the module ``contracts`` next to the entry module; None if there is none."""
    package = plugin.module.partition(":")[0].rpartition(".")[0]
    if plugin.name == CORE or not package or find_spec(f"{package}.contracts") is None:
        return None
    return f"{package}.contracts"


def missing_knowledge(spec: Spec[Any]) -> str:
    """Return the missing input of the plain suite, for messages; empty if the suite can run."""
    if isinstance(spec, WeightLoaderSpec) and spec.suffixes[:1] and spec.suffixes[0] not in _WRITABLE:
        return f"a writer of {spec.suffixes[0]} files (WeightLoaderContract.write)"
    if isinstance(spec, ModelSpec) and all(task.required for task in spec.tasks.values()):
        return "inputs of its tasks (ModelContract.inputs)"
    return ""
