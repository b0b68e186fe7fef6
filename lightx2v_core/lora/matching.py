"""Matching a LoRA file with a network: the changes that apply to a tensor, and those that do not, with reasons.

The network is given by the names and shapes of its tensors and by the key maps of its component: a file for another
layout of the same network is matched through the key map of that layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod

from attrs import field, frozen

from lightx2v_core.lora import naming
from lightx2v_core.lora.recognition import (
    LoraContents,
    LoraModule,
    dotted_names,
    flat_name,
    of_text_encoder,
    parsed,
)
from lightx2v_core.spec.components import KeyMap
from lightx2v_core.spec.protocols import Change
from lightx2v_core.spec.tensors import Header, TensorInfo

Shapes = Mapping[str, Sequence[int]]

#: kind of a change -> the roles of its factors; its other tensors scale it
_ROLES: Mapping[str, frozenset[str]] = {
    "low-rank": frozenset({"down", "up", "mid"}),
    "loha": frozenset({"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"}),
    "lokr": frozenset({"w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"}),
}


_NO_PLACE = "the network has no such tensor"


@frozen(kw_only=True)
class Coverage:
    """The part of a file that has an effect on a network."""

    changes: tuple[Change, ...]
    #: stored names of the tensors that these changes use
    matched: tuple[str, ...]
    #: stored name without a tensor in the network -> reason
    unmatched: Mapping[str, str] = field(factory=dict)
    #: stored name whose tensor in the network has another shape -> reason
    mismatched: Mapping[str, str] = field(factory=dict)
    #: number of pairs of matrices in the file (of differences, if it has no pairs), without those of text encoders, and
    #: number of these with a tensor in the network
    pairs: int = 0
    placed: int = 0

    @property
    def whole(self) -> bool:
        """Return whether every tensor of the file has an effect."""
        return not self.unmatched and not self.mismatched

    @property
    def foreign(self) -> bool:
        """Return whether the file is for another network: less than half of its pairs have a tensor in this one."""
        return 2 * self.placed < self.pairs


def match(lora: Header | LoraContents, expected: Shapes, layouts: Sequence[KeyMap] = ()) -> Coverage:
    """Match the changes of a LoRA with the tensors ``expected`` (name -> shape) of a network. ``layouts`` are the key
    maps of its component."""
    file = lora if isinstance(lora, LoraContents) else parsed(lora)
    names = _Names(expected, layouts)
    changes: list[Change] = []
    by_target: dict[tuple[str, str, tuple[int, int] | None], str] = {}
    unmatched = dict.fromkeys(file.unknown, "not a known part of a LoRA")
    mismatched: dict[str, str] = {}
    paired = any(target.rank is not None and not of_text_encoder(target.base) for target in file.targets)
    pairs = placed = 0
    for target in file.targets:
        matched = _match_module(target, names)
        if (target.rank is not None or not paired) and not of_text_encoder(target.base):
            pairs, placed = pairs + 1, placed + bool(matched.changes)
        unmatched |= matched.unmatched
        mismatched |= matched.mismatched
        for change in matched.changes:
            key = (change.target, change.kind, change.rows)
            if key in by_target:
                reason = f"{change.target} is already changed by {by_target[key]}"
                unmatched |= dict.fromkeys(change.tensors.values(), reason)
                continue
            by_target[key] = target.base
            changes.append(change)
    used = {name for change in changes for name in change.tensors.values()}
    return Coverage(
        changes=tuple(changes),
        matched=tuple(name for name in file.header if name in used),
        unmatched={name: why for name, why in unmatched.items() if name not in used},
        mismatched={name: why for name, why in mismatched.items() if name not in used},
        pairs=pairs,
        placed=placed,
    )


@frozen(kw_only=True)
class _ModuleMatch:
    """The changes of one target; unmatched and mismatched stored names, with reasons."""

    changes: list[Change] = field(factory=list)
    unmatched: dict[str, str] = field(factory=dict)
    mismatched: dict[str, str] = field(factory=dict)


def _match_module(target: LoraModule, names: _Names) -> _ModuleMatch:
    """Find the tensor in the network for each change of a target."""
    match = _ModuleMatch()
    used: set[str] = set()
    for kind in target.kinds:
        kind = "low-rank" if kind.startswith("low-rank") else kind
        tensors = _tensors_of(target, kind)
        used |= set(tensors)
        _add_change(match, target, kind, tensors, names)
    if "up_bias" in target.tensors and any(change.kind == "low-rank" for change in match.changes):
        used.add("up_bias")
        _add_bias(match, target, names)
    for role, info in target.tensors.items():
        if role not in used:
            reason = f"{target.base} is incomplete: no {_lacks(target)}"
            match.unmatched.setdefault(info.name, reason)
    return match


def _tensors_of(target: LoraModule, kind: str) -> dict[str, TensorInfo]:
    """Select the factors of a change of one kind, then the tensors that scale it, by role."""
    roles = _ROLES.get(kind, frozenset({kind}))
    scaling = ("alpha", "magnitude") if kind in _ROLES else ()
    tensors = {role: info for role, info in target.tensors.items() if role in roles}
    return tensors | {role: target.tensors[role] for role in scaling if role in target.tensors}


def _add_change(
    match: _ModuleMatch, target: LoraModule, kind: str, tensors: Mapping[str, TensorInfo], names: _Names
) -> None:
    place = names.find(target.base, naming.PARAMETERS.get(kind, "weight"))
    stored = [info.name for info in tensors.values()]
    if place is None:
        match.unmatched.update(dict.fromkeys(stored, _NO_PLACE))
    elif problem := _misfit(kind, tensors, place.part):
        reason = f"{place.tensor} is {list(place.part)}, {problem}"
        match.mismatched.update(dict.fromkeys(stored, reason))
    else:
        rank = target.rank if kind in _ROLES else None
        match.changes.append(_change(place, "diff" if kind.startswith("diff") else kind, tensors, rank))


def _add_bias(match: _ModuleMatch, target: LoraModule, names: _Names) -> None:
    """Add the bias of the second matrix: a difference for the layer's bias, scaled like the pair."""
    info, place = target.tensors["up_bias"], names.find(target.base, "bias")
    if place is None:
        match.unmatched[info.name] = _NO_PLACE
    elif info.elements != prod(place.part):
        match.mismatched[info.name] = f"{place.tensor} is {list(place.shape)}, this is {list(info.shape)}"
    else:
        alpha = {"alpha": target.tensors["alpha"]} if "alpha" in target.tensors else {}
        match.changes.append(_change(place, "diff", {"diff": info, **alpha}, target.rank))


def _change(place: _Place, kind: str, tensors: Mapping[str, TensorInfo], rank: int | None) -> Change:
    return Change(
        target=place.tensor,
        kind=kind,
        tensors={role: info.name for role, info in _plain(tensors).items()},
        rank=rank,
        shape=place.shape,
        rows=place.rows,
    )


def _plain(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Rename the roles of differences to ``diff``, for every parameter."""
    return {"diff" if role.startswith("diff") else role: info for role, info in tensors.items()}


def _lacks(target: LoraModule) -> str:
    roles = set(target.tensors)
    if roles & {"down", "up"}:
        return "down" if "down" not in roles else "up"
    return "matrix"


def _misfit(kind: str, tensors: Mapping[str, TensorInfo], shape: Sequence[int]) -> str:
    """Explain why the factors of a change do not form a tensor of ``shape``; empty if they do."""
    shapes = {role: info.shape for role, info in tensors.items()}
    factors = ", ".join(f"{role} {list(shapes[role])}" for role in tensors if role != "alpha")
    if "alpha" in tensors and tensors["alpha"].elements != 1:
        return f"its alpha is not a single number: {list(shapes['alpha'])}"
    if "magnitude" in shapes and prod(shapes["magnitude"]) not in (shape[0], *shape[1:2]):
        return f"the file has {factors}"
    if kind not in _ROLES:
        fits = prod(tensors[kind].shape) == prod(shape)
    elif len(shape) < 2:
        fits = False
    elif kind == "low-rank":
        fits = _fits_low_rank(shapes, shape)
    elif kind == "loha":
        fits = _fits_loha(shapes, shape)
    else:
        fits = _fits_lokr(shapes, shape)
    return "" if fits else f"the file has {factors}"


def _fits_low_rank(shapes: Mapping[str, tuple[int, ...]], shape: Sequence[int]) -> bool:
    down, up, mid = shapes["down"], shapes["up"], shapes.get("mid")
    if len(down) < 2 or len(up) < 2 or prod(up[2:]) != 1 or up[0] != shape[0] or not down[0]:
        return False
    if mid is None:
        return up[1] == down[0] and prod(down[1:]) == prod(shape[1:])
    kernel = tuple(mid[2:])
    return (
        len(mid) >= 2
        and (mid[0], mid[1]) == (up[1], down[0])
        and prod(down[2:]) == 1
        and (down[1], *kernel) == tuple(shape[1:])
    )


def _fits_loha(shapes: Mapping[str, tuple[int, ...]], shape: Sequence[int]) -> bool:
    factors = [_product(shapes, part, f"t{part[1]}") for part in ("w1", "w2")]
    return all(one is not None and one[0] == shape[0] and prod(one) == prod(shape) for one in factors)


def _fits_lokr(shapes: Mapping[str, tuple[int, ...]], shape: Sequence[int]) -> bool:
    first, second = _product(shapes, "w1", "t1"), _product(shapes, "w2", "t2")
    return (
        first is not None
        and second is not None
        and len(first) == 2
        and len(second) >= 2
        and first[0] * second[0] == shape[0]
        and first[1] * prod(second[1:]) == prod(shape[1:])
    )


def _product(shapes: Mapping[str, tuple[int, ...]], part: str, core: str) -> tuple[int, ...] | None:
    """Compute the shape of a factor that is stored as one tensor, as a product ``a @ b``, or with a core tensor ``t``;
    ``None`` if their shapes do not match."""
    if part in shapes:
        return shapes[part]
    a, b, t = shapes[f"{part}_a"], shapes[f"{part}_b"], shapes.get(core)
    if len(a) != 2 or len(b) != 2:
        return None
    if t is None:
        return (a[0], b[1]) if a[1] == b[0] else None
    return (a[1], b[1], *t[2:]) if len(t) >= 2 and (t[0], t[1]) == (a[0], b[0]) else None


@frozen(kw_only=True)
class _Place:
    """The target of a change: the tensor, its shape, and the rows that change if they are only a part."""

    tensor: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None

    @property
    def part(self) -> tuple[int, ...]:
        """Return the shape that the change must have."""
        return self.shape if self.rows is None else (self.rows[1] - self.rows[0], *self.shape[1:])


class _Names:
    """Lookup of a network's tensors by the module names in LoRA files."""

    def __init__(self, expected: Shapes, layouts: Sequence[KeyMap]) -> None:
        self._expected = expected
        self._layouts = layouts
        self._flat: dict[str, str | None] = {}
        for name in expected:
            key = name.replace(".", "_")
            # a flat name of two tensors is ambiguous and matches neither
            self._flat[key] = None if key in self._flat else name

    def find(self, base: str, parameter: str) -> _Place | None:
        """Find the tensor of a module's ``parameter``, or the tensor whose own name is ``base``."""
        flat = flat_name(base)
        for name in () if flat else dotted_names(base):
            for old in _spellings(name):
                for full in _with_parameter(old, parameter, "."):
                    if place := self._place(full):
                        return place
        for name in flat or [last for last in dotted_names(base)[-1:] if "." not in last]:
            for full in _with_parameter(name, parameter, "_"):
                if place := self._flat_place(full):
                    return place
        return None

    def _place(self, name: str) -> _Place | None:
        if name in self._expected:
            return _Place(tensor=name, shape=tuple(self._expected[name]))
        for key_map in self._layouts:
            tensor, _, part = renamed(key_map, name).partition("#")
            if tensor in self._expected:
                return self._part(key_map, tensor, part)
        return None

    def _flat_place(self, name: str) -> _Place | None:
        if tensor := self._flat.get(name):
            return _Place(tensor=tensor, shape=tuple(self._expected[tensor]))
        for key_map in self._layouts:
            key, _, part = renamed(key_map, name, flat=True).partition("#")
            if tensor := self._flat.get(key.replace(".", "_")):
                return self._part(key_map, tensor, part)
        return None

    def _part(self, key_map: KeyMap, tensor: str, part: str) -> _Place | None:
        shape = tuple(self._expected[tensor])
        if not part:
            return _Place(tensor=tensor, shape=shape)
        if part not in key_map.joins or shape[0] % len(key_map.joins):
            return None
        rows = shape[0] // len(key_map.joins)
        start = key_map.joins.index(part) * rows
        return _Place(tensor=tensor, shape=shape, rows=(start, start + rows))


def _with_parameter(name: str, parameter: str, dot: str) -> Iterable[str]:
    """Yield the possible full names for a module's name: its parameter, or the name itself if it is a tensor."""
    yield f"{name}{dot}{parameter}"
    yield name


def _spellings(name: str) -> Iterable[str]:
    """Yield a module's name, and the current spelling of a name from older programs."""
    yield name
    modern = name
    for pattern, text in naming.OLD_MODULES:
        modern = re.sub(pattern, text, modern)
    if modern != name:
        yield modern


def renamed(key_map: KeyMap, name: str, *, flat: bool = False) -> str:
    """Apply the renames of a key map to a name; with ``flat`` its dots are underscores."""
    for pattern, text in _compiled(key_map.renames, flat):
        name = pattern.sub(text, name)
    return name


@lru_cache(maxsize=64)
def _compiled(renames: tuple[tuple[str, str], ...], flat: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(_any_dot(pattern) if flat else pattern), text) for pattern, text in renames)


def _any_dot(pattern: str) -> str:
    """Let the dots of a pattern match underscores as well: flat names do not distinguish them."""
    return re.sub(r"\[[^\]]*\]|\\\.", lambda match: "[._]" if match[0] == r"\." else match[0], pattern)
