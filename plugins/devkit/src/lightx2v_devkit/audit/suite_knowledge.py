"""What the contract suites have to be told of an implementation, and where its plugin tells it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from lightx2v_core.api import ModelSpec, Plugin, Spec, WeightLoaderSpec
from lightx2v_devkit.distributions import CORE

#: suffixes of files that the plain suite can write
_WRITABLE = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt"})


def contracts_module(plugin: Plugin) -> str | None:
    """The module ``contracts`` beside the entry module, where there is one."""
    package = plugin.module.partition(":")[0].rpartition(".")[0]
    if plugin.name == CORE or not package or find_spec(f"{package}.contracts") is None:
        return None
    return f"{package}.contracts"


def missing_knowledge(spec: Spec[Any]) -> str:
    """What the plain suite would have to be told, in words; empty when nothing."""
    if isinstance(spec, WeightLoaderSpec) and spec.suffixes[:1] and spec.suffixes[0] not in _WRITABLE:
        return f"how {spec.suffixes[0]} files are written (WeightLoaderContract.write)"
    if isinstance(spec, ModelSpec) and all(task.required for task in spec.tasks.values()):
        return "what its tasks start from (ModelContract.inputs)"
    return ""
