"""The weight files below a folder, grouped into sets, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.shards import INDEX_SUFFIX, MOST_FILES, FileSet, check_index
from lightx2v_core.errors import CheckpointError, PluginFault, shortened
from lightx2v_core.spec.tensors import Header

#: folders below the one that was asked about; models lie flatter than this
DEPTH = 4
#: as many folders are looked into
FOLDERS = 10_000


@frozen(kw_only=True)
class WeightSet:
    """Files that belong together, and what their heads say."""

    located: FileSet
    header: Header

    @property
    def folder(self) -> Path:
        return self.located.files[0].parent


def weight_files(root: Path, suffixes: Sequence[str], reader: Reader) -> tuple[list[WeightSet], list[str]]:
    """Every set of weight files below ``root`` (or ``root`` itself, when it is a file), and the problems of those that
    cannot be read. Not more than ``FOLDERS`` folders and ``MOST_FILES`` files are looked into."""
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
                f"{root} holds more than {FOLDERS} folders or {MOST_FILES} weight files; {folder} and those behind it "
                "were not looked into: give the folder of one model"
            )
            break
        sets, unreadable = _read(located, reader)
        weight_sets += sets
        problems += wrong + unreadable
    return weight_sets, problems


def _folders(root: Path, reader: Reader, depth: int = DEPTH) -> Iterator[Path]:
    """``root`` and the folders below, in order; hidden ones, which tools keep things in, are left out, so are links,
    which may lead in a circle."""
    yield root
    if not depth:
        return
    try:
        names = reader.listing(root).folders
    except CheckpointError:
        return  # which whoever looks into it says
    for name in names:
        if not name.startswith(".") and not os.path.islink(root / name):
            yield from _folders(root / name, reader, depth - 1)


def _sets(folder: Path, suffixes: Sequence[str], reader: Reader) -> tuple[list[FileSet], list[str]]:
    located: list[FileSet] = []
    there = reader.listing(folder)
    ends = tuple(suffixes)
    problems = [
        f"{folder / name} cannot be looked at: {reason}"
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
            problems.append(f"{folder}: {shortened(loose)} is in no set: {indexes} does not name it")
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
