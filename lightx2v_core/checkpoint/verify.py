"""Comparing the headers of files with the tensors that the model needs, before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lightx2v_core.checkpoint.formats import accounted, format_problems, layer_formats
from lightx2v_core.errors import shortened
from lightx2v_core.spec.tensors import Header

#: dtypes that can be cast to a compute dtype without scales
PLAIN_DTYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
_SHOWN = 5
#: tables of angles and positions, buffers of training and of tokenizers: without effect on the computation
_LEFT_BY_PROGRAMS = re.compile(
    r"(?:^|[._])(?:freqs(?:_\w+)?|rope(?:\.[\w.]+)?|inv_freq|position_ids|pos_embedder\.\w+|num_batches_tracked|"
    r"_extra_state|spiece_model|accum_\w+)$"
)


def problems(component: str, header: Header, expected: Mapping[str, Sequence[int]], source: str) -> list[str]:
    """Return the problems of a component as sentences; ``source`` names the origin of ``expected``."""
    sentences = []
    missing = [name for name in expected if name not in header.tensors]
    if missing:
        sentences.append(
            f"{component}: {len(missing)} of {len(expected)} tensors are missing: {_some(missing)}"
        )
    # the shape of packed codes is not that of their weight
    shapes = header.shapes | {f"{layer.name}.weight": layer.shape for layer in layer_formats(header).values()}
    wrong = [
        f"{name} is {list(shapes[name])}, {source} needs {list(shape)}"
        for name, shape in expected.items()
        if name in header.tensors and shapes[name] != tuple(shape)
    ]
    if wrong:
        sentences.append(
            f"{component}: {len(wrong)} tensors do not have the shape that {source} needs: {_some(wrong)}"
        )
    return sentences


def wrong_formats(component: str, stored: Header, header: Header) -> list[str]:
    """Return the problems of quantized tensors as sentences; ``stored`` has the names and marks of the files,
    ``header`` the official names."""
    reasons = list(dict.fromkeys(format_problems(stored) or format_problems(header)))
    more = f" (and {len(reasons) - _SHOWN} more problems)" if len(reasons) > _SHOWN else ""
    return [f"{component}: {problem}" for problem in reasons[: _SHOWN - 1]] + [
        f"{component}: {problem}{more}" for problem in reasons[_SHOWN - 1 : _SHOWN]
    ]


def unused(header: Header, expected: Mapping[str, Sequence[int]], spare: Sequence[str] = ()) -> list[str]:
    """List the tensors of a file that the model does not use, except those that match ``spare`` (regular expressions)
    and the scales and marks of quantized weights."""
    patterns = [re.compile(pattern) for pattern in spare]
    explained = accounted(header)
    extra = [name for name in header if name not in expected and name not in explained]
    return [name for name in extra if not any(pattern.search(name) for pattern in patterns)]


def strangers(header: Header, expected: Mapping[str, Sequence[int]], spare: Sequence[str] = ()) -> list[str]:
    """List the unused tensors that may belong to another network: all but counters, tables that are recomputed, and
    remains of training."""
    return [
        name
        for name in unused(header, expected, spare)
        if header.tensors[name].elements > 1 and not _LEFT_BY_PROGRAMS.search(name)
    ]


def kinds(names: Sequence[str]) -> str:
    """Summarize tensor names for a message: those of one part of a network, or of its numbered blocks, are merged."""
    counts: dict[str, int] = {}
    for name in names:
        first, *rest = name.split(".")
        numbered = bool(rest) and rest[0].isdecimal()
        kind = f"{first}.N.{'.'.join(rest[1:2])}" if numbered else first
        counts[kind] = counts.get(kind, 0) + 1
    return shortened([f"{kind} ({count})" if count > 1 else kind for kind, count in counts.items()], _SHOWN)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
