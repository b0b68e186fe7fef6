"""The weight files below a folder, grouped into sets, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from lightx2v_core.checkpoint.shards import Located, check_index, merged, weight_sets
from lightx2v_core.errors import CheckpointError
from lightx2v_core.tensors import Header

ReadHeader = Callable[[Path], Header]
#: folders below the one that was asked about; models lie flatter than this
DEPTH = 4


@frozen(kw_only=True)
class WeightSet:
    """Files that belong together, and what their heads say."""

    located: Located
    header: Header

    @property
    def folder(self) -> Path:
        return self.located.files[0].parent


def weight_files(root: Path, suffixes: Sequence[str], read: ReadHeader) -> tuple[list[WeightSet], list[str]]:
    """Every set of weight files below ``root`` (or ``root`` itself, when it is a file), and the problems of those that
    cannot be read."""
    if root.is_file():
        return _read([Located(files=(root,), rule="file")], read)
    found: list[WeightSet] = []
    problems: list[str] = []
    for folder in _folders(root):
        located, wrong = _sets(folder, suffixes)
        sets, unreadable = _read(located, read)
        found += sets
        problems += wrong + unreadable
    return found, problems


def _folders(root: Path) -> Iterator[Path]:
    """``root`` and the folders below, in order; hidden ones, which tools keep things in, are left out."""
    for folder, names, _ in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts) >= DEPTH
        names[:] = [] if deep else sorted(name for name in names if not name.startswith("."))
        yield here


def _sets(folder: Path, suffixes: Sequence[str]) -> tuple[list[Located], list[str]]:
    found: list[Located] = []
    problems: list[str] = []
    for suffix in suffixes:
        sets, broken = weight_sets(folder, f"*{suffix}", "model")
        found += sets
        problems += [problem for _, problem in broken]
        used = {path.name for item in [*sets, *(item for item, _ in broken)] for path in item.files}
        loose = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.suffix.lower() == suffix and entry.name not in used
        )
        if loose and sets:
            indexes = ", ".join(item.index.name for item in sets if item.index is not None)
            problems.append(f"{folder}: {', '.join(loose)} is in no set: {indexes} does not name it")
    return found, problems


def _read(located: Sequence[Located], read: ReadHeader) -> tuple[list[WeightSet], list[str]]:
    found: list[WeightSet] = []
    problems: list[str] = []
    for item in located:
        headers = []
        for path in item.files:
            try:
                headers.append(read(path))
            except CheckpointError as exc:
                problems.append(str(exc))
        if len(headers) < len(item.files):
            continue
        try:
            header = merged(headers)
            if item.index is not None:
                check_index(item.index, header)
        except CheckpointError as exc:
            problems.append(str(exc))
            continue
        found.append(WeightSet(located=item, header=header))
    return found, problems
