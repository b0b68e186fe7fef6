"""Layouts: files with the same weights under other tensor names than the official ones.

A ``KeyMap`` belongs to a component's spec; this module applies it to headers, and to sources when weights are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from lightx2v_core.checkpoint.derived import DerivedSource, is_direct
from lightx2v_core.checkpoint.formats import LAYER_MARK, official_suffix
from lightx2v_core.checkpoint.renames import renames_of
from lightx2v_core.errors import CheckpointError
from lightx2v_core.spec.components import ComponentSpec, KeyMap
from lightx2v_core.spec.protocols import WeightSource
from lightx2v_core.spec.tensors import Header, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL_LAYOUT = KeyMap(name="official")
#: layouts of files whose names have a prefix: with several components, and with this component alone
ALL_IN_ONE, COMFYUI = "all-in-one", "comfyui"
Renamed = dict[str, dict[str, TensorInfo]]


@frozen(kw_only=True)
class MappedHeader:
    """A header with official names, and the stored names behind each of them."""

    layout: str
    header: Header
    stored: Mapping[str, tuple[str, ...]]
    #: scale with one number for each part of a joined weight -> the rows of these parts
    spread: Mapping[str, tuple[int, ...]] = field(factory=dict)

    @property
    def renamed(self) -> bool:
        """Return whether any name differs from the stored one."""
        return any(parts != (name,) for name, parts in self.stored.items())


def recognize_layout(spec: ComponentSpec, header: Header) -> MappedHeader | None:
    """Rename the tensors of a header to the official names of a component, by the first layout that matches its
    signature.

    From a file with several components, each under a prefix of its own, only this component's tensors are used.
    Returns ``None`` if the file is not of this component.
    """
    for layout, part in _parts(spec, header):
        if (mapped := _whole(spec, part)) is not None:
            return evolve(mapped, layout=layout)
    return _whole(spec, header)


def _parts(spec: ComponentSpec, header: Header) -> list[tuple[str, Header]]:
    """Return the parts of a file under each prefix of a component, with the prefix removed, and their layout."""
    if not spec.prefixes:
        return []
    return header.once(("parts", spec.prefixes), lambda: list(_made_parts(spec.prefixes, header)))


def _made_parts(prefixes: Sequence[str], header: Header) -> Iterator[tuple[str, Header]]:
    for pattern in map(re.compile, prefixes):
        inside: dict[str, dict[str, TensorInfo]] = {}
        for name, info in header.tensors.items():
            if match := pattern.match(name):
                inside.setdefault(match.group(), {})[name[match.end() :]] = info
        for tensors in inside.values():
            # layout "comfyui": the file contains this component alone
            layout = ALL_IN_ONE if len(tensors) < len(header) else COMFYUI
            yield layout, Header(tensors=tensors, metadata=header.metadata)


def stored_part(mapped: MappedHeader, header: Header) -> Header:
    """Return the part of a file that belongs to a component: all of it, unless the file contains several."""
    if mapped.layout != ALL_IN_ONE:
        return header
    own = {name for parts in mapped.stored.values() for name in parts}
    return evolve(header, tensors={name: info for name, info in header.tensors.items() if name in own})


def _whole(spec: ComponentSpec, header: Header) -> MappedHeader | None:
    if all(name in header.tensors for name in spec.signature):
        return apply_key_map(OFFICIAL_LAYOUT, header)
    for key_map in spec.layouts:
        new = _renamed(key_map, header)
        if new is None or not all(name in new for name in spec.signature):
            continue
        mapped = apply_key_map(key_map, header)
        if mapped is not None and all(name in mapped.header.tensors for name in spec.signature):
            return mapped
    return None


def apply_key_map(key_map: KeyMap, header: Header) -> MappedHeader | None:
    """Rename the tensors of a header by a key map.

    Returns ``None`` if two tensors would get the same name, or a part of a joined tensor is missing. Raises
    ``CheckpointError`` if the shapes or dtypes of the parts do not match.
    """
    # the cached value keeps the key map alive, so that its id is not reused
    return header.once(("layout", id(key_map)), lambda: (key_map, _applied(key_map, header)))[1]


def _renamed(key_map: KeyMap, header: Header) -> Renamed | None:
    """Return a mapping official name -> part -> tensor; ``None`` if two tensors would get the same name, or the map
    renames none."""
    return header.once(("names", id(key_map)), lambda: (key_map, _all_renamed(key_map, header)))[1]


def _all_renamed(key_map: KeyMap, header: Header) -> Renamed | None:
    renames = renames_of(key_map)
    if key_map is not OFFICIAL_LAYOUT and not any(map(renames.touches, header.tensors)):
        return None
    renamed: Renamed = {}
    for name, info in header.tensors.items():
        new = renames.renamed(name)
        if new is None:
            continue
        new, _, part = new.partition("#")
        new = official_suffix(new, header.tensors)
        if part in renamed.setdefault(new, {}):
            return None
        renamed[new][part] = info
    return renamed


def _applied(key_map: KeyMap, header: Header) -> MappedHeader | None:
    renamed = _renamed(key_map, header)
    if renamed is None:
        return None
    tensors, stored, spread = {}, {}, {}
    for name, parts in renamed.items():
        ordered = [parts[part] for part in key_map.joins if part in parts] or list(parts.values())
        if len(ordered) != len(parts) or ("" not in parts and len(parts) != len(key_map.joins)):
            return None  # a part is missing or unknown
        layer, _, suffix = name.rpartition(".")
        if len(ordered) > 1 and suffix == LAYER_MARK:
            ordered = ordered[:1]  # the marks of all parts are the same
        elif len(ordered) > 1 and all(info.elements == 1 for info in ordered):
            if suffix != "weight_scale":
                continue  # scales of activations, which are computed in each call
            weights = renamed.get(f"{layer}.weight", {})
            # a scalar has no rows; ``format_problems`` reports its scales
            rows = tuple(sum(weights[part].shape[:1]) for part in key_map.joins if part in weights)
            tensors[name] = evolve(ordered[0], shape=(sum(rows), 1), offset=None)
            stored[name], spread[name] = tuple(info.name for info in ordered), rows
            continue
        tensors[name] = ordered[0] if len(ordered) == 1 else _joined(ordered)
        stored[name] = tuple(info.name for info in ordered)
    return MappedHeader(
        layout=key_map.name,
        header=Header(tensors=tensors, metadata=header.metadata),
        stored=stored,
        spread=spread,
    )


class MappedSource(DerivedSource):
    """A ``WeightSource`` with official names on top of one with stored names, which it closes. Parts that a layout
    stores separately are joined along the first axis."""

    def __init__(self, base: WeightSource, mapped: MappedHeader) -> None:
        super().__init__(base, mapped.spread)
        self._mapped = mapped

    def names(self) -> Sequence[str]:
        return list(self._mapped.header.tensors)

    def info(self, name: str) -> TensorInfo:
        return self._mapped.header.tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        parts = [self._base.read(stored, device) for stored in self._mapped.stored[name]]
        if rows := self._mapped.spread.get(name):
            import torch

            return torch.cat([part.reshape(1, 1).expand(n, 1) for part, n in zip(parts, rows, strict=True)])
        if len(parts) == 1:
            # a layout may store a tensor with other axes of length one
            return parts[0].reshape(self.info(name).stored_shape)
        import torch

        return torch.cat(parts)

    def direct(self, name: str) -> bool:
        """Return whether all parts are direct; they are joined by reading one after the other."""
        base = self._base
        if name in self._mapped.spread:
            return False
        return is_direct(base) and all(base.direct(stored) for stored in self._mapped.stored[name])

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read the tensor into ``out``, which has the stored shape and dtype."""
        base, row = self._base, 0
        assert is_direct(base)
        stored = self._mapped.stored[name]
        if len(stored) == 1:
            return base.read_into(stored[0], out.view(base.info(stored[0]).stored_shape), cached=cached)
        for part in stored:
            rows = base.info(part).stored_shape[0]
            base.read_into(part, out[row : row + rows], cached=cached)
            row += rows


def _joined(parts: Sequence[TensorInfo]) -> TensorInfo:
    first = parts[0]
    if not first.shape or any(
        part.shape[1:] != first.shape[1:] or part.dtype != first.dtype or part.block != first.block
        for part in parts
    ):
        names = ", ".join(part.name for part in parts)
        raise CheckpointError(
            f"{first.file}: {names} are parts of one tensor, but their shapes or dtypes differ"
        )
    rows = sum(part.shape[0] for part in parts)
    return evolve(first, shape=(rows, *first.shape[1:]), offset=None)
