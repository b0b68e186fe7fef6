"""Groups the weight files of one folder: what an index names, numbered shards, block files, and single files."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from attrs import frozen

from lightx2v_core.errors import CheckpointError
from lightx2v_core.tensors import Header, TensorInfo

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors$")
#: the files that a network split by its blocks consists of
_BLOCK = re.compile(r"(non_block|block_\d+)\.safetensors$")
INDEX_SUFFIX = ".safetensors.index.json"


@frozen(kw_only=True)
class Located:
    """The files of a component, the rule that chose them, and the index that names them."""

    files: tuple[Path, ...]
    rule: str
    index: Path | None = None
    #: what else could have been the component, in words
    passed_over: tuple[str, ...] = ()


def weight_sets(folder: Path, pattern: str, summary: str) -> tuple[list[Located], list[tuple[Located, str]]]:
    """The sets of files in ``folder`` whose names match ``pattern``, and those that are not complete, with what is
    wrong with them. ``summary`` names what is looked for."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    indexes = fnmatch.filter(names, pattern.removesuffix(".safetensors") + INDEX_SUFFIX)
    found: list[Located] = []
    broken: list[tuple[Located, str]] = []
    indexed: set[str] = set()
    for name in indexes:
        index, rule = folder / name, f"index {name}"
        try:
            files = _indexed(index)
        except CheckpointError as exc:
            broken.append((Located(files=(index,), rule=rule, index=index), str(exc)))
            continue
        indexed.update(path.name for path in files)
        found.append(Located(files=files, rule=rule, index=index))
    groups: dict[tuple[str, str], list[str]] = {}
    stems = {name.removesuffix(INDEX_SUFFIX) for name in indexes}
    for name in fnmatch.filter(names, pattern):
        if name not in indexed and _group(name)[0] not in stems:
            groups.setdefault(_group(name), []).append(name)
    for (_, total), members in groups.items():
        files = tuple(folder / name for name in members)
        if total == "blocks":
            found.append(Located(files=files, rule="block files"))
        elif total:
            located = Located(files=files, rule="shards")
            if problem := _shard_problem(folder, members, summary):
                broken.append((located, problem))
            else:
                found.append(located)
        elif not members[0].endswith(INDEX_SUFFIX):
            found.append(Located(files=files, rule="file"))
    return found, broken


def _group(name: str) -> tuple[str, str]:
    """What a file belongs together with: the stem and total of its shards, its blocks, or nothing but itself."""
    if _BLOCK.fullmatch(name):
        return "", "blocks"
    shard = _SHARD.fullmatch(name)
    return (shard["stem"], shard["total"]) if shard else (name, "")


def _shard_problem(folder: Path, names: Sequence[str], summary: str) -> str:
    """What is wrong with shards that no index names; nothing when their own numbering says that all are there."""
    parts = [part for name in names if (part := _SHARD.fullmatch(name))]
    total = int(parts[0]["total"])
    there = {int(part["number"]) for part in parts}
    wanted = set(range(1, total + 1))
    for numbers, what in ((wanted - there, "is missing"), (there - wanted, "is one too many")):
        if numbers:
            some = ", ".join(f"{number:05d}" for number in sorted(numbers)[:8])
            more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
            return f"{folder}: shard {some}{more} of {total} of the {summary} {what}"
    return ""


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


def check_index(index: Path, header: Header) -> None:
    """``CheckpointError`` unless an index and the shards it names agree on what is where."""
    weight_map = _weight_map(index)
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
