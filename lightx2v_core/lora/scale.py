"""alpha / rank of every change: the file's alpha, else the configuration's, else a scale of 1."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from lightx2v_core.errors import CheckpointError
from lightx2v_core.protocols import Change, WeightSource
from lightx2v_core.tensors import Header

#: file metadata in which diffusers keeps the configuration that PEFT had
_METADATA = "lora_adapter_metadata"


def scaled(
    changes: Sequence[Change],
    source: WeightSource,
    *,
    stated: float | None,
    alpha: float | None,
    override: bool,
) -> tuple[Change, ...]:
    """Changes with their scale. ``stated`` is the alpha that the file states for all of them, ``alpha`` that of the
    configuration, which wins with ``override``. An alpha of 0 means none, as where these files come from.

    ``CheckpointError`` for an alpha that is no number."""
    return tuple(_scaled(change, source, stated, alpha, override) for change in changes)


def stated_alpha(header: Header) -> float | None:
    """The one alpha in the metadata of a file, if all of its networks have the same."""
    try:
        data = json.loads(header.metadata.get(_METADATA, "null"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    patterns = [value for key, value in data.items() if key.rpartition(".")[2] == "alpha_pattern"]
    found = {
        value for key, value in data.items() if key.rpartition(".")[2] == "lora_alpha" and _is_alpha(value)
    }
    return float(found.pop()) if len(found) == 1 and not any(patterns) else None


def _is_alpha(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _scaled(
    change: Change, source: WeightSource, stated: float | None, alpha: float | None, override: bool
) -> Change:
    if change.rank is None:
        return change
    if override and alpha is not None:
        return evolve(change, scale=alpha / change.rank)
    own = float(source.read(change.tensors["alpha"]).item()) if "alpha" in change.tensors else 0.0
    if not math.isfinite(own):
        raise CheckpointError(
            f"{source.info(change.tensors['alpha']).file}: {change.tensors['alpha']} is {own}"
        )
    found = own or stated or alpha
    return evolve(change, scale=1.0 if found is None else found / change.rank)
