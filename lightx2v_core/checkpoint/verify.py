"""Compares what a file holds with what the model needs, before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lightx2v_core.tensors import Header

#: dtypes that can be cast to a compute dtype without knowing more about the layer
PLAIN = frozenset({"float64", "float32", "float16", "bfloat16"})
_SHOWN = 5


def problems(component: str, header: Header, expected: Mapping[str, Sequence[int]], source: str) -> list[str]:
    """What is wrong with a component, as sentences; ``source`` names what ``expected`` was derived from."""
    found = []
    missing = [name for name in expected if name not in header.tensors]
    if missing:
        found.append(f"{component}: {len(missing)} of {len(expected)} tensors are missing: {_some(missing)}")
    wrong = [
        f"{name} is {list(header.tensors[name].shape)}, {source} needs {list(shape)}"
        for name, shape in expected.items()
        if name in header.tensors and header.tensors[name].shape != tuple(shape)
    ]
    if wrong:
        found.append(
            f"{component}: {len(wrong)} tensors have another shape than {source} says: {_some(wrong)}"
        )
    return found


def coded(component: str, header: Header, expected: Mapping[str, Sequence[int]]) -> list[str]:
    """Tensors in a dtype that needs a quantizer, as a sentence; an empty list when there are none."""
    found = [
        f"{name} ({info.dtype} in {info.file.name})"
        for name, info in header.tensors.items()
        if name in expected and info.dtype not in PLAIN
    ]
    if not found:
        return []
    return [
        f"{component}: {len(found)} tensors are stored quantized: {_some(found)}; choose a quantizer that reads them"
    ]


def unused(header: Header, expected: Mapping[str, Sequence[int]], spare: Sequence[str] = ()) -> list[str]:
    """Tensors of the file that the model has no use for, but for those that ``spare`` (regular expressions) names."""
    patterns = [re.compile(pattern) for pattern in spare]
    return [name for name in header if name not in expected and not any(p.search(name) for p in patterns)]


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
