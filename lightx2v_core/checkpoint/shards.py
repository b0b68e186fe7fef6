"""Grouping the weight files of one folder: shards of an index, numbered shards, block files, and single files."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from attrs import frozen

from lightx2v_core.checkpoint.listing import Listing
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.errors import CheckpointError, shortened
from lightx2v_core.spec.tensors import Header, TensorInfo

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors$")
#: the files of a network that is split by its blocks
_BLOCK = re.compile(r"(non_block|block_\d+)\.safetensors$")
#: names of files that need no further checks
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
INDEX_SUFFIX = ".safetensors.index.json"
#: most weight files in one folder, or of one index; the largest checkpoints have some hundred
MOST_FILES = 10_000
#: bytes of a file name on every operating system, and characters and names that a message shows
_LONGEST, _SHOWN, _FEW = 255, 200, 8


@frozen(kw_only=True)
class FileSet:
    """The files of a component, the rule that chose them, and the index that names them."""

    files: tuple[Path, ...]
    rule: str
    index: Path | None = None
    #: descriptions of the candidates that were not chosen
    passed_over: tuple[str, ...] = ()


#: complete sets of weight files, and incomplete ones with their problem
Sets = tuple[list[FileSet], list[tuple[FileSet, str]]]


def indexes(there: Listing, pattern: str) -> list[str]:
    """Return the names of the indexes in a folder whose shards match ``pattern``."""
    return fnmatch.filter(there.files, pattern.removesuffix(".safetensors") + INDEX_SUFFIX)


def weight_sets(
    there: Listing, pattern: str, summary: str, indexed_files: Callable[[Path], tuple[Path, ...]]
) -> Sets:
    """Find the sets of files in a folder whose names match ``pattern``: the complete ones, and the incomplete ones with
    their problem. ``summary`` is the component's, for messages; ``indexed_files`` returns the files of an index. Raises
    ``CheckpointError`` for more than ``MOST_FILES`` files."""
    folder = there.folder
    complete: list[FileSet] = []
    broken: list[tuple[FileSet, str]] = []
    indexed: set[str] = set()
    named = indexes(there, pattern)
    for name in named:
        index, rule = folder / name, f"index {name}"
        try:
            files = indexed_files(index)
        except CheckpointError as exc:
            broken.append((FileSet(files=(index,), rule=rule, index=index), str(exc)))
            continue
        indexed.update(path.name for path in files)
        complete.append(FileSet(files=files, rule=rule, index=index))
    groups: dict[tuple[str, str], list[str]] = {}
    stems = {name.removesuffix(INDEX_SUFFIX) for name in named}
    matching = fnmatch.filter(there.files, pattern)
    if len(matching) > MOST_FILES:
        raise CheckpointError(
            f"{folder} contains {len(matching)} files that match {pattern!r}, more than the limit of {MOST_FILES}; use "
            "the folder of one model, or name its files"
        )
    for name in matching:
        if name not in indexed and _group(name)[0] not in stems:
            groups.setdefault(_group(name), []).append(name)
    for (_, total), members in groups.items():
        files = tuple(folder / name for name in members)
        if total == "blocks":
            complete.append(FileSet(files=files, rule="block files"))
        elif total:
            located = FileSet(files=files, rule="shards")
            if problem := _shard_problem(folder, members, summary):
                broken.append((located, problem))
            else:
                complete.append(located)
        elif not members[0].endswith(INDEX_SUFFIX):
            complete.append(FileSet(files=files, rule="file"))
    for name in fnmatch.filter(there.unreadable, pattern):
        problem = f"{folder / name} cannot be accessed: {there.unreadable[name]}"
        broken.append((FileSet(files=(folder / name,), rule="file"), problem))
    return complete, broken


def _group(name: str) -> tuple[str, str]:
    """Return the key of a file's group: stem and total of its shards, the block files, or the file alone."""
    if _BLOCK.fullmatch(name):
        return "", "blocks"
    shard = _SHARD.fullmatch(name)
    return (shard["stem"], shard["total"]) if shard else (name, "")


def _shard_problem(folder: Path, names: Sequence[str], summary: str) -> str:
    """Return the problem of shards without an index, by their numbering; empty if they are complete."""
    parts = [part for name in names if (part := _SHARD.fullmatch(name))]
    total = int(parts[0]["total"])
    there = {int(part["number"]) for part in parts}
    expected = set(range(1, total + 1))
    for numbers, what in (
        (expected - there, "is missing"),
        (there - expected, "has a number above the total"),
    ):
        if numbers:
            some = ", ".join(f"{number:05d}" for number in sorted(numbers)[:8])
            more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
            return f"{folder}: shard {some}{more} of {total} of the {summary} {what}"
    return ""


def indexed(index: Path, entries: Mapping[str, str], there: Listing) -> tuple[Path, ...]:
    """List the files of an index. Raises ``CheckpointError`` if one is outside the folder or missing, or if there are
    more than ``MOST_FILES``."""
    names = sorted(set(entries.values()))
    for name in names:
        if reason := _refused(name):
            shown = repr(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!r}..."
            raise CheckpointError(f"{index} was refused: its entry {shown} {reason}")
    # files in subfolders are checked one by one; those in the folder are listed already
    lost = sorted(
        {name for name in names if "/" in name and not os.path.isfile(index.parent / name)}
        | ({name for name in names if "/" not in name} - set(there.files))
    )
    if lost:
        raise CheckpointError(
            f"{index.name} names {len(names)} files; {len(lost)} of them are missing in {index.parent}: "
            f"{shortened(lost, _FEW)}; download them again"
        )
    if len(names) > MOST_FILES:
        raise CheckpointError(f"{index} names {len(names)} files, more than the limit of {MOST_FILES}")
    return tuple(index.parent / name for name in names)


def _refused(name: str) -> str:
    """Return the reason to refuse a file name in an index; empty if it is valid."""
    if _PLAIN.fullmatch(name) and len(name) <= _LONGEST:
        return ""
    pure = PurePosixPath(name)
    try:
        longest = max((len(os.fsencode(part)) for part in pure.parts), default=0)
    except UnicodeError:
        return "is not a valid file name"
    if "\0" in name or longest > _LONGEST:
        return "is not a valid file name"
    outside = pure.is_absolute() or ".." in pure.parts or not pure.parts
    if outside or PureWindowsPath(name).drive or "\\" in name:
        return "points outside the folder"
    return ""


def weight_map(index: Path) -> Mapping[str, str]:
    """Read the weight map of an index: tensor -> name of its file. Raises ``CheckpointError`` if the file is not an
    index."""
    value = read_object(index, "is not a shard index").get("weight_map")
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value.values()):
        raise CheckpointError(f"{index} is not a shard index: its weight_map is empty or names no files")
    return value


def check_index(index: Path, entries: Mapping[str, str], header: Header) -> None:
    """Check an index with the weight map ``entries`` against the headers of its shards. Raises ``CheckpointError`` if a
    tensor is in another file, or missing from either."""
    last_part = {file: PurePosixPath(file).name for file in set(entries.values())}
    wrong = [
        f"{name} (index: {file})"
        for name, file in entries.items()
        if name not in header.tensors or header.tensors[name].file.name != last_part[file]
    ]
    extra = [f"{name} (only in {header.tensors[name].file.name})" for name in header if name not in entries]
    if wrong or extra:
        raise CheckpointError(
            f"{index} does not match its shards: {len(wrong)} tensors are not in the file it names and {len(extra)} "
            f"are not in the index, such as {(wrong or extra)[0]}; download the index and the shards again"
        )


def merged(headers: Sequence[Header]) -> Header:
    """Merge the headers of several files. Raises ``CheckpointError`` for a tensor that is in two of them."""
    if len(headers) == 1:
        return headers[0]
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in tensors:
                raise CheckpointError(f"tensor {name!r} is in both {tensors[name].file} and {info.file.name}")
            tensors[name] = info
        metadata.update(header.metadata)
    return Header(tensors=tensors, metadata=metadata)
