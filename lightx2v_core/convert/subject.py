"""What is converted: the files of one component, which component it is, and its tensors in official names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from lightx2v_core.checkpoint.components import locate
from lightx2v_core.checkpoint.folders import expanded, near, short
from lightx2v_core.checkpoint.formats import format_problems
from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.layouts import OFFICIAL_LAYOUT, MappedHeader, apply_key_map, recognize_layout
from lightx2v_core.checkpoint.listing import filesystem_errors, why_not
from lightx2v_core.checkpoint.shards import Located, check_index
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, RequestError, suggestion
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.recognize import read_header
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.specs import ModelSpec, WeightLoaderSpec
from lightx2v_core.spec.tensors import Header


@frozen(kw_only=True)
class Subject:
    """The files of a component before they are converted."""

    files: tuple[Path, ...]
    #: None for a checkpoint that no installed model knows
    part: ComponentSpec | None
    stored: Header
    mapped: MappedHeader
    #: names of components that it may be, and of their groups
    names: frozenset[str] = frozenset()
    #: the components of a model that it is one of, where two look alike
    experts: tuple[str, ...] = ()

    @property
    def header(self) -> Header:
        """The tensors in official names."""
        return self.mapped.header

    @property
    def spec(self) -> ComponentSpec:
        """What is known of the component; for one that is not known, what holds of any."""
        return self.part or ComponentSpec(name="network", summary="network", files=())


@filesystem_errors()
def find(
    source: str | Path, registry: Registry, component: str | None = None, not_whole: str = ""
) -> Subject:
    """The one component that ``source``, a file or a folder, holds; ``component`` says which of several, and
    ``not_whole`` why the folder cannot be converted as a whole. ``CheckpointError`` for files that are broken,
    ``RequestError`` when it is not clear what is meant."""
    path = expanded(place_of(source, registry))
    if reason := why_not(path):
        raise RequestError(f"source {short(str(source))} {reason}{near(path)}")
    found = [_file(path, registry)] if path.is_file() else _folder(path, registry)
    if component is not None:
        # of the files of a folder the rules of a run tell which is which expert, of one file it is said
        alone = path.is_file()
        own = [item for item in found if component in (item.names if alone else _own_names(item))]
        found = own or (_below(path, component, registry) if path.is_dir() else [])
        if not found:
            raise RequestError(_no_component(path, component, registry))
    whole = f"\n  it is not converted as a whole: {not_whole}" if not_whole else ""
    if not found:
        raise RequestError(f"{_no_weights(path, registry)}{whole}")
    if len(found) > 1:
        lines = "\n".join(
            f"  {item.files[0].relative_to(path).as_posix()}: {item.spec.summary}" for item in found
        )
        ways = "or --component" if whole else "--component, or a folder as --output for the whole model"
        raise RequestError(
            f"{path} holds {len(found)} networks; give one of the files, {ways}:\n{lines}{whole}"
        )
    part = found[0].part
    if component is None and part is not None and not part.main and (inside := _inside(path, registry)):
        raise RequestError(
            f"{path} holds the {part.summary}, and its folders hold more ({', '.join(inside)}); say which with "
            f"--component{whole}"
        )
    return checked(found[0])


def _own_names(subject: Subject) -> tuple[str | None, ...]:
    return () if subject.part is None else (subject.part.name, subject.part.group)


def checked(subject: Subject) -> Subject:
    """``subject`` as it is; ``CheckpointError`` when its weights and their scales contradict each other."""
    if problems := format_problems(subject.stored):
        where = subject.files[0] if len(subject.files) == 1 else subject.files[0].parent
        raise CheckpointError(f"{where} cannot be converted:\n  " + "\n  ".join(problems[:5]))
    return subject


def _file(path: Path, registry: Registry) -> Subject:
    return subject_of((path,), read_header(registry, path), registry)


def _folder(folder: Path, registry: Registry) -> list[Subject]:
    found = []
    reader = _reader(registry)
    for suffix in _suffixes(registry):
        sets, broken = reader.sets(folder, f"*{suffix}", "network")
        if broken:
            raise CheckpointError(f"{folder}: {broken[0][1]}")
        for item in sets:
            found.append(_located(item, reader, registry))
    return found


def _below(folder: Path, component: str, registry: Registry) -> list[Subject]:
    """A component in the folders of a model, such as one of two experts, by the rules that a run finds it with."""
    found: dict[tuple[Path, ...], Located] = {}
    reader = _reader(registry)
    for part in _parts(registry):
        if component in (part.name, part.group):
            located = locate(part, folder, None, reader)
            if located is not None:
                found.setdefault(located.files, located)
    return [_located(item, reader, registry) for item in found.values()]


def _reader(registry: Registry) -> Reader:
    return Reader(lambda path: read_header(registry, path))


def _located(item: Located, reader: Reader, registry: Registry) -> Subject:
    header = reader.whole(item.files)
    if item.index is not None:
        check_index(item.index, reader.weight_map(item.index), header)
    return subject_of(item.files, header, registry)


def _no_weights(folder: Path, registry: Registry) -> str:
    """What to say of a folder without weights of its own."""
    if not (inside := _inside(folder, registry)):
        return f"{folder} holds no weight files; give a file, or the folder that holds them"
    return (
        f"{folder} holds no weight files itself, but its folders do ({', '.join(inside)}); give one of them, or say "
        "which component with --component"
    )


def _inside(folder: Path, registry: Registry) -> list[str]:
    """The names of the folders in a folder that hold weight files; none for a file."""
    suffixes = tuple(_suffixes(registry))
    return sorted({file.parent.name for file in folder.glob("*/*") if file.name.endswith(suffixes)})


def _no_component(folder: Path, component: str, registry: Registry) -> str:
    """What to say when no rule finds a component."""
    names = sorted({name for part in _parts(registry) for name in (part.name, part.group or part.name)})
    if not names:
        return f"{folder} holds no {component!r}: no model is installed that could say what it is"
    meant = "" if component in names else suggestion(component, names)
    return f"{folder} holds no {component!r}{meant}; the installed models have {', '.join(names)}"


def _parts(registry: Registry) -> list[ComponentSpec]:
    """The components of all models."""
    specs: list[Any] = [item.spec for item in registry.candidates("model")]
    assert all(isinstance(spec, ModelSpec) for spec in specs)
    return [part for spec in specs for part in spec.components]


def _suffixes(registry: Registry) -> list[str]:
    """How weight files end."""
    specs = [item.spec for item in registry.candidates("weight_loader")]
    return sorted(
        {suffix for spec in specs if isinstance(spec, WeightLoaderSpec) for suffix in spec.suffixes}
    )


def subject_of(files: Sequence[Path], stored: Header, registry: Registry) -> Subject:
    """The component whose signature the files have; of several, the one that renames most of the tensors."""
    known: list[tuple[ComponentSpec, MappedHeader]] = []
    for part in _parts(registry):
        mapped = recognize_layout(part, stored) if part.signature else None
        if mapped is not None:
            known.append((part, mapped))
    if not known:
        mapped = apply_key_map(OFFICIAL_LAYOUT, stored)
        assert mapped is not None
        return Subject(files=tuple(files), part=None, stored=stored, mapped=mapped)
    # of networks that others are a part of, the whole one knows more names
    part, mapped = max(known, key=lambda found: (_renamed(found[1]), len(found[0].signature)))
    # variants of one network differ in what they add to it
    patterns = {
        pattern: None for other, _ in known if other.quantize is not None for pattern in other.quantize
    }
    if part.quantize is not None:
        part = evolve(part, quantize=tuple(patterns))
    names = {name for other, _ in known for name in (other.name, other.group) if name is not None}
    return Subject(
        files=tuple(files),
        part=part,
        stored=stored,
        mapped=mapped,
        names=frozenset(names),
        experts=_experts([other for other, _ in known], registry),
    )


def _experts(known: Sequence[ComponentSpec], registry: Registry) -> tuple[str, ...]:
    """The components of the first model of which several look like this."""
    for item in registry.candidates("model"):
        spec: Any = item.spec
        groups = {part.group for part in spec.components if part in known and part.group is not None}
        alike = [part.name for part in spec.components if part.group in groups]
        if len(alike) > 1:
            return tuple(alike)
    return ()


def _renamed(mapped: MappedHeader) -> int:
    return sum(parts != (name,) for name, parts in mapped.stored.items())
