"""Finds the files of each component by the rules of a ``ComponentSpec``, and reads their headers."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from attrs import evolve, frozen

from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.specs import ComponentSpec
from lightx2v_core.tensors import Header, TensorInfo

ReadHeader = Callable[[Path], Header]
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors$")
INDEX_SUFFIX = ".safetensors.index.json"


@frozen(kw_only=True)
class Located:
    """The files of a component, the rule that chose them, and the index that names them."""

    files: tuple[Path, ...]
    rule: str
    index: Path | None = None


@frozen(kw_only=True)
class Component:
    """A component that was found: its files, the rule that chose them, and what their headers say."""

    name: str
    files: tuple[Path, ...]
    rule: str
    header: Header
    assets: Mapping[str, Path]


def model_folder(path: str | Path) -> Path:
    """The folder a user named; ``CheckpointError`` when it is none."""
    folder = expanded(path)
    if folder is None or not folder.exists():
        raise CheckpointError(f"model folder {_short(str(path))} does not exist{_near(folder)}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; give the folder that holds the model's files"
        )
    if not any(folder.iterdir()):
        raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path | None:
    """A path with ``~`` replaced, ``None`` when no file can be called so."""
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError):  # a name that is too long, an unknown ~user
        return None
    return found


def _near(folder: Path | None) -> str:
    """What else is there, for a folder that is not."""
    parent = next((p for p in folder.parents if p.is_dir()), None) if folder is not None else None
    if folder is None or parent is None:
        return ""
    try:
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        return ""
    if near := suggestion(folder.relative_to(parent).parts[0], names):
        return f"{near} (in {str(parent)!r})"
    return f"; {str(parent)!r} holds: {', '.join(names[:8])}" if names else ""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, ``{}`` when there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is damaged: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__} where an object is expected")
    return value


def locate(spec: ComponentSpec, folder: Path, override: str | None) -> Located | None:
    """The files of a component and the rule that chose them, ``None`` when there are none.

    An explicit path wins and must exist; else the first of the spec's patterns that matches. An index beside shards
    is followed; several unrelated matches are a ``CheckpointError`` that lists them.
    """
    if override is not None:
        path = expanded(override)
        if path is not None and path.is_file():
            return Located(files=(path,), rule=f"components.{spec.name}.path")
        if path is None or not path.is_dir():
            raise CheckpointError(
                f"components.{spec.name}.path {_short(override)} does not exist{_near(path)}"
            )
        found = _matching(spec, path) or _matching(spec, path, patterns=("*.safetensors",))
        if found is None:
            raise CheckpointError(
                f"components.{spec.name}.path {override!r} holds no {spec.summary} ({', '.join(spec.files)})"
            )
        return evolve(found, rule=f"components.{spec.name}.path, {found.rule}")
    return _matching(spec, folder)


def read_component(spec: ComponentSpec, folder: Path, found: Located, read: ReadHeader) -> Component:
    """Read the headers of located files. ``CheckpointError`` for a broken or contradictory file."""
    header = merged([read(path) for path in found.files])
    if found.index is not None:
        _check_index(found.index, _weight_map(found.index), header)
    return Component(
        name=spec.name,
        files=found.files,
        rule=found.rule,
        header=header,
        assets={name: folder / path for name, path in spec.assets.items()},
    )


def merged(headers: Sequence[Header]) -> Header:
    """Several files as one; a tensor that is in two of them is a ``CheckpointError``."""
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in tensors:
                raise CheckpointError(f"tensor {name!r} is in both {tensors[name].file} and {info.file.name}")
            tensors[name] = info
        metadata.update(header.metadata)
    return Header(tensors=tensors, metadata=metadata)


def _matching(spec: ComponentSpec, folder: Path, patterns: Sequence[str] | None = None) -> Located | None:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    for pattern in patterns or spec.files:
        if indexes := fnmatch.filter(names, pattern.removesuffix(".safetensors") + INDEX_SUFFIX):
            if len(indexes) > 1:
                raise CheckpointError(_ambiguous(spec, folder, indexes))
            index = folder / indexes[0]
            return Located(files=_indexed(index), rule=f"index {index.name}", index=index)
        found = fnmatch.filter(names, pattern)
        if len(found) == 1:
            shard = _SHARD.fullmatch(found[0])
            if shard is None or shard["total"] == "00001":
                return Located(files=(folder / found[0],), rule=f"file {pattern}")
        if found:
            return Located(files=_shards(spec, folder, found), rule=f"shards {pattern}")
    return None


def _shards(spec: ComponentSpec, folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Shards without an index: fine when their own numbering says that all are there."""
    parts = [_SHARD.fullmatch(name) for name in names]
    stems = {
        (part["stem"], part["total"]) if part else (name, "") for part, name in zip(parts, names, strict=True)
    }
    if len(stems) > 1:
        raise CheckpointError(_ambiguous(spec, folder, names))
    total = int(next(iter(stems))[1])
    there = {int(part["number"]) for part in parts if part}
    wanted = set(range(1, total + 1))
    for numbers, what in ((wanted - there, "is missing"), (there - wanted, "is one too many")):
        if numbers:
            some = ", ".join(f"{number:05d}" for number in sorted(numbers)[:8])
            more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
            raise CheckpointError(f"{folder}: shard {some}{more} of {total} of the {spec.summary} {what}")
    return tuple(folder / name for name in names)


def _ambiguous(spec: ComponentSpec, folder: Path, names: Sequence[str]) -> str:
    lines = "\n".join(f"  {name}" for name in names)
    return (
        f"{folder} holds more than one {spec.summary}; say which with components.{spec.name}.path:\n{lines}"
    )


def _indexed(index: Path) -> tuple[Path, ...]:
    """The files an index names. None may leave the folder, all must be there."""
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        pure = PurePosixPath(name)
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or PureWindowsPath(name).drive
            or "\\" in name
            or "\0" in name
            or not pure.parts
        ):
            raise CheckpointError(f"{index} was refused: its entry {name!r} points outside the folder")
    if lost := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index.name} names {len(names)} files and {len(lost)} of them are missing in {index.parent}: "
            f"{', '.join(lost)}; download them again"
        )
    return tuple(index.parent / name for name in names)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        value = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CheckpointError(f"{index} is no index of shards: {type(exc).__name__}: {exc}") from None
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value.values()):
        raise CheckpointError(f"{index} is no index of shards: its weight_map is empty or names no files")
    return value


def _check_index(index: Path, weight_map: Mapping[str, str], header: Header) -> None:
    """The index and the shards must agree on what is where."""
    wrong = [
        f"{name} (index: {file})"
        for name, file in weight_map.items()
        if name not in header.tensors or header.tensors[name].file.name != PurePosixPath(file).name
    ]
    extra = [
        f"{name} (only in {header.tensors[name].file.name})" for name in header if name not in weight_map
    ]
    if wrong or extra:
        raise CheckpointError(
            f"{index} does not agree with its shards: {len(wrong)} tensors are not where it says and {len(extra)} "
            f"are not in it, such as {(wrong or extra)[0]}; download the index and the shards again"
        )


def _short(text: str) -> str:
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
