"""The scale of each change: from its file, else alpha / rank with the alpha of the configuration, else 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import evolve

from lightx2v_core.errors import CheckpointError
from lightx2v_core.lora.stated import Strength
from lightx2v_core.spec.protocols import Change, WeightSource


def scaled(
    changes: Sequence[Change],
    source: WeightSource,
    *,
    stated: Mapping[str, Strength],
    alpha: float | None,
    override: bool,
) -> tuple[Change, ...]:
    """Set the scale of changes: from the alpha among their tensors, else from ``stated`` for one of these tensors, else
    from ``alpha``, that of the configuration, which takes precedence over both with ``override``. An alpha of 0 means
    none, as in the programs that write these files.

    Raises ``CheckpointError`` for an alpha that is not finite."""
    return tuple(_scaled(change, source, stated, alpha, override) for change in changes)


def _scaled(
    change: Change,
    source: WeightSource,
    stated: Mapping[str, Strength],
    alpha: float | None,
    override: bool,
) -> Change:
    strength = next((stated[name] for name in change.tensors.values() if name in stated), None)
    if change.rank is None:
        return change if strength is None or override else evolve(change, scale=strength.over(None))
    if override and alpha is not None:
        return evolve(change, scale=alpha / change.rank)
    own = float(source.read(change.tensors["alpha"]).item()) if "alpha" in change.tensors else 0.0
    if not math.isfinite(own):
        raise CheckpointError(
            f"{source.info(change.tensors['alpha']).file}: {change.tensors['alpha']} is {own}"
        )
    if own:
        return evolve(change, scale=own / change.rank)
    if strength is not None:
        return evolve(change, scale=strength.over(change.rank))
    return evolve(change, scale=1.0 if alpha is None else alpha / change.rank)
