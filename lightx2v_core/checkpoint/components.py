"""Locating the files of each component by the rules of a ``ComponentSpec``, and reading their headers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from lightx2v_core.checkpoint.candidates import Candidate, Wish, choose_candidate, gathered, not_taken
from lightx2v_core.checkpoint.folders import expanded, near, short
from lightx2v_core.checkpoint.formats import layer_formats
from lightx2v_core.checkpoint.header_cache import ReadHeader, reader_of
from lightx2v_core.checkpoint.layouts import (
    OFFICIAL_LAYOUT,
    MappedHeader,
    apply_key_map,
    recognize_layout,
    stored_part,
)
from lightx2v_core.checkpoint.listing import why_not
from lightx2v_core.checkpoint.places import SEARCH_FOLDERS, SearchFolder
from lightx2v_core.checkpoint.shards import FileSet, check_index
from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.tensors import Header, LayerFormat

#: an explicit folder is searched itself, not its subfolders
_HERE = (SearchFolder(folder=""),)


class OfAnother(CheckpointError):
    """A configured path to something other than the component that one model needs; another model may accept it."""


@frozen(kw_only=True)
class Component:
    """A located component: its files, the rule that chose them, and their headers."""

    name: str
    files: tuple[Path, ...]
    rule: str
    #: the header with official names
    header: Header
    #: mapping of the stored names to the official ones
    mapped: MappedHeader
    #: the header with the names in the files
    stored: Header
    assets: Mapping[str, Path]
    #: other files that could have been the component
    passed_over: tuple[str, ...] = ()

    @property
    def formats(self) -> Mapping[str, LayerFormat]:
        """Return the storage format of each layer whose weight is not in a plain float dtype."""
        return layer_formats(self.header)


def locate_component(
    spec: ComponentSpec,
    folder: Path,
    override: str | None,
    read: ReadHeader | None = None,
    wish: Wish | None = None,
) -> FileSet | None:
    """Find the files of a component and the rule that chose them; ``None`` if there are none.

    An explicit path takes precedence and must exist; otherwise ``candidates`` chooses between the matches in all places
    inside the model's folder. An index next to shards is followed. With ``read``, files without the spec's signature
    are skipped. Raises ``CheckpointError`` if the files are ambiguous or incomplete.
    """
    wish = wish or Wish()
    wish = evolve(wish, key=wish.key or f"components.{spec.name}")
    if override is not None:
        return _explicit(spec, override, read, wish)
    patterns = [*spec.files, *spec.fallback]
    candidates = gathered(spec, folder, patterns, read, wish)
    chosen = choose_candidate(spec, folder, candidates, wish)
    if chosen is None:
        return None
    place = f"{chosen.place.folder}/" if chosen.place.folder else ""
    return _located(chosen, candidates, f"{place}{patterns[chosen.pattern]}")


def absence(spec: ComponentSpec, folder: Path, read: ReadHeader) -> str:
    """Explain why a folder does not contain the component; the headers of files with matching names are read."""
    reader = reader_of(read)
    for located in reader.sets(folder, spec.files[0].rpartition("/")[2], spec.summary)[0]:
        held = {name for path in located.files for name in reader(path)}
        if lost := [name for name in spec.signature if name not in held]:
            return f"no {spec.summary}: {located.files[0].name} has no tensor {lost[0]!r}"
    return f"no {spec.summary} ({' or '.join(spec.files)})"


def _explicit(spec: ComponentSpec, override: str, read: ReadHeader | None, wish: Wish) -> FileSet:
    key = f"{wish.key}.path"
    path = expanded(override)
    if os.path.isfile(path):
        candidates = [Candidate(located=FileSet(files=(path,), rule=key), place=_HERE[0], pattern=0)]
        if read is not None:
            mapped = recognize_layout(spec, read(path))
            if mapped is None:
                raise OfAnother(
                    f"{key} {override!r} is not a {spec.summary}: no tensor {spec.signature[0]!r}"
                )
            candidates = [evolve(candidates[0], mapped=mapped)]
        # for one explicit file the configured value of 'distilled' holds, even if its name suggests otherwise
        choose_candidate(spec, path.parent, candidates, evolve(wish, distilled=None))
        return candidates[0].located
    if not os.path.isdir(path):
        raise CheckpointError(f"{key} {short(override)} {why_not(path) or 'is not a file'}{near(path)}")
    names = [pattern.rpartition("/")[2] for pattern in spec.files]
    patterns = [*dict.fromkeys([*spec.files, *names, "*.safetensors", *spec.fallback])]
    candidates = gathered(spec, path, patterns, read, wish, _HERE)
    chosen = choose_candidate(spec, path, candidates, wish)
    if chosen is None:
        raise OfAnother(f"{key} {override!r} contains no {spec.summary} ({', '.join(spec.files)})")
    located = _located(chosen, candidates, patterns[chosen.pattern])
    return evolve(located, rule=f"{key}, {located.rule}")


def _located(chosen: Candidate, candidates: Sequence[Candidate], pattern: str) -> FileSet:
    rule = chosen.located.rule
    return evolve(
        chosen.located,
        rule=rule if chosen.located.index is not None else f"{rule} {pattern}",
        passed_over=not_taken(candidates, chosen),
    )


def read_component(
    spec: ComponentSpec,
    folder: Path,
    located: FileSet,
    read: ReadHeader,
    assets: Mapping[str, str] | None = None,
) -> Component:
    """Read the headers of located files.

    ``assets`` maps asset names to files outside their usual place. Raises ``CheckpointError`` for a broken or
    contradictory file, and for a missing asset or an unknown asset name.
    """
    reader = reader_of(read)
    stored = reader.whole(located.files)
    if located.index is not None:
        check_index(located.index, reader.weight_map(located.index), stored)
    mapped = recognize_layout(spec, stored) or apply_key_map(OFFICIAL_LAYOUT, stored)
    assert mapped is not None
    return Component(
        name=spec.name,
        files=located.files,
        rule=located.rule,
        header=mapped.header,
        mapped=mapped,
        stored=stored_part(mapped, stored),
        assets={
            **{name: _asset(folder, located.files[0].parent, paths) for name, paths in spec.assets.items()},
            **_given_assets(spec, assets or {}),
        },
        passed_over=located.passed_over,
    )


def with_expected_shapes(component: Component, expected: Mapping[str, Sequence[int]]) -> Component:
    """Set the expected shapes of tensors that a layout stores with other axes of length one. Returns ``component``
    itself, with everything cached for its header, if there are none."""
    tensors = component.header.tensors
    shapes = {
        name: tuple(shape)
        for name, shape in expected.items()
        if name in tensors
        and tensors[name].shape != tuple(shape)
        and _axes(tensors[name].shape) == _axes(shape)
    }
    if not shapes:
        return component
    header = component.header.once(
        ("fitted", tuple(shapes.items())), lambda: _reshaped(component.header, shapes)
    )
    return evolve(component, header=header, mapped=evolve(component.mapped, header=header))


def _reshaped(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> Header:
    changed = {name: evolve(header.tensors[name], shape=shape) for name, shape in shapes.items()}
    return evolve(header, tensors={**header.tensors, **changed})


def _given_assets(spec: ComponentSpec, given: Mapping[str, str]) -> Mapping[str, Path]:
    """Resolve the explicit paths of assets; a path may be the folder that contains the asset."""
    assets = {}
    for name, text in given.items():
        key = f"components.{spec.name}.assets.{name}"
        if name not in spec.assets:
            known = ", ".join(spec.assets) or "none"
            raise CheckpointError(
                f"{key}: unknown asset{suggestion(name, spec.assets)}; this component has {known}"
            )
        path = expanded(text)
        if os.path.isdir(path):
            inside = [path / Path(usual).name for usual in spec.assets[name]]
            path = next((file for file in inside if os.path.isfile(file)), inside[0])
        if not os.path.isfile(path):
            raise CheckpointError(f"{key} {short(text)} {why_not(path) or 'is not a file'}{near(path)}")
        assets[name] = path
    return assets


def _axes(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _asset(folder: Path, beside: Path, paths: Sequence[str]) -> Path:
    """Find an asset inside the model's folder, next to the component, or in one of the known places. Returns its usual
    path if it is in none of them."""
    for where in (folder, beside, *(folder / place.folder for place in SEARCH_FOLDERS[1:])):
        for path in paths:
            if os.path.lexists(where / path):
                return where / path
    return folder / paths[0]
