"""The weight files below a folder, grouped into sets, and problems with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.shards import INDEX_SUFFIX, MOST_FILES, FileSet, check_index
from lightx2v_core.errors import CheckpointError, PluginFault, shortened
from lightx2v_core.spec.tensors import Header

#: most levels of folders below the inspected one; models have fewer
DEPTH = 4
#: most folders that are searched
FOLDERS = 10_000


@frozen(kw_only=True)
class WeightSet:
    """Files that belong together, and their combined header."""

    located: FileSet
    header: Header

    @property
    def folder(self) -> Path:
        return self.located.files[0].parent


def weight_files(root: Path, suffixes: Sequence[str], reader: Reader) -> tuple[list[WeightSet], list[str]]:
    """Find every set of weight files below ``root``, or ``root`` itself if it is a file.

    Returns the sets, and problems of unreadable files. Searches at most ``FOLDERS`` folders and ``MOST_FILES`` files.
    """
    if root.is_file():
        return _read([FileSet(files=(root,), rule="file")], reader)
    weight_sets: list[WeightSet] = []
    problems: list[str] = []
    files = 0
    for number, folder in enumerate(_folders(root, reader)):
        try:
            located, wrong = _sets(folder, suffixes, reader)
        except CheckpointError as exc:
            problems.append(str(exc))
            continue
        files += sum(len(one.files) for one in located)
        if number >= FOLDERS or files > MOST_FILES:
            problems.append(
                f"{root} contains more than {FOLDERS} folders or {MOST_FILES} weight files; {folder} and later ones "
                "were not searched: give the folder of one model"
            )
            break
        sets, unreadable = _read(located, reader)
        weight_sets += sets
        problems += wrong + unreadable
    return weight_sets, problems


def _folders(root: Path, reader: Reader, depth: int = DEPTH) -> Iterator[Path]:
    """Yield ``root`` and the folders below it, in order.

    Skips hidden folders, which belong to tools, and links, which may form a cycle.
    """
    yield root
    if not depth:
        return
    try:
        names = reader.listing(root).folders
    except CheckpointError:
        return  # reported when the folder itself is searched
    for name in names:
        if not name.startswith(".") and not os.path.islink(root / name):
            yield from _folders(root / name, reader, depth - 1)


def _sets(folder: Path, suffixes: Sequence[str], reader: Reader) -> tuple[list[FileSet], list[str]]:
    located: list[FileSet] = []
    there = reader.listing(folder)
    ends = tuple(suffixes)
    problems = [
        f"{folder / name} cannot be read: {reason}"
        for name, reason in there.unreadable.items()
        if name.lower().endswith(ends)
    ]
    for suffix in suffixes:
        names = [name for name in there.files if name.lower().endswith(suffix)]
        if not names and not any(name.endswith(INDEX_SUFFIX) for name in there.files):
            continue
        sets, broken = reader.sets(folder, f"*{suffix}", "model")
        located += sets
        problems += [problem for _, problem in broken]
        used = {path.name for one in [*sets, *(one for one, _ in broken)] for path in one.files}
        loose = [name for name in names if name not in used]
        if loose and sets:
            indexes = ", ".join(one.index.name for one in sets if one.index is not None)
            problems.append(f"{folder}: {shortened(loose)} is not part of a set: {indexes} does not list it")
    return located, list(dict.fromkeys(problems))


def _read(located: Sequence[FileSet], reader: Reader) -> tuple[list[WeightSet], list[str]]:
    weight_sets: list[WeightSet] = []
    problems: list[str] = []
    for one in located:
        wrong = []
        for path in one.files:
            try:
                reader(path)
            except (CheckpointError, PluginFault) as exc:
                wrong.append(str(exc))
        problems += wrong
        if wrong:
            continue
        try:
            header = reader.whole(one.files)
            if one.index is not None:
                check_index(one.index, reader.weight_map(one.index), header)
        except CheckpointError as exc:
            problems.append(str(exc))
            continue
        weight_sets.append(WeightSet(located=one, header=header))
    return weight_sets, problems
