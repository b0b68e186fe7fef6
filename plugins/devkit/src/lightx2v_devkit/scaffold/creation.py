"""Writes a new distribution: the whole folder or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from lightx2v_core.api import OutputError, RequestError, uninterrupted

#: the names of the files in the making
_FILES = "files.json"
#: a folder of a process: its number
_PLACE = re.compile(r"\..+\.new-(\d{1,9})", re.DOTALL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def admitting(version: str) -> str:
    """What a plugin written for a core of this version admits: its minor version, since the next one may drop what was
    deprecated in this one. A core before its release is the least that is admitted."""
    from packaging.version import Version

    this = Version(version)
    least = str(this) if this.is_prerelease else f"{this.major}.{this.minor}"
    return f">={least},<{this.major}.{this.minor + 1}"


def check_new(folder: Path) -> None:
    """``RequestError`` when there is something at ``folder`` already, or no place to make it in."""
    if os.path.lexists(folder):
        raise RequestError(f"{str(folder)!r} exists already; give another --output, or remove it")
    if not folder.absolute().parent.is_dir():
        raise RequestError(
            f"{str(folder.absolute().parent)!r} is no folder, so {folder.name!r} cannot be made in it"
        )


def create(folder: Path, contents: Mapping[str, bytes], named: Callable[[], None] = lambda: None) -> None:
    """Make ``folder`` with these files (path -> content). It appears when all of them are written, and ``named`` is
    called then, before a signal that arrived meanwhile has an effect; ``OutputError`` when that fails, and then nothing
    is left. What a kill leaves goes with the next one that is made beside it."""
    check_new(folder)
    work = _Work(folder)
    try:
        try:
            uninterrupted(partial(work.begin, contents))
            for path, data in contents.items():
                file = work.tree / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            uninterrupted(partial(_appear, work.tree, folder, named))
        finally:
            uninterrupted(work.end)
    except OSError as exc:
        reason = exc.strerror or exc
        raise OutputError(f"{str(folder)!r} could not be written: {reason}; nothing was left behind") from exc


class _Work:
    """A hidden folder beside the result, so that the last step is one renaming: the ``tree`` in the making, and the
    names of all its files, which are written first. By them the next one knows what it may remove after a kill."""

    def __init__(self, folder: Path) -> None:
        self._parent = folder.absolute().parent
        self._place = self._parent / f".{folder.name[:40]}.new-{os.getpid()}"
        self.tree = self._place / "tree"
        self._file: int | None = None

    def begin(self, contents: Mapping[str, bytes]) -> None:
        _sweep(self._parent)
        self._place.mkdir(0o700)
        self._file = os.open(self._place, _FOLDER)
        with suppress(OSError):  # where there are no locks, others go by the number of the process
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self._place / _FILES).write_text(json.dumps(list(contents)))
        self.tree.mkdir()

    def end(self) -> None:
        if self._file is not None:
            _clear(self._place)
            os.close(self._file)
            self._file = None


def _sweep(parent: Path) -> None:
    """Remove what processes that are dead left when they were killed."""
    for name in os.listdir(parent):
        match = _PLACE.fullmatch(name)
        if match is None or (int(match[1]) != os.getpid() and _is_alive(int(match[1]))):
            continue
        with suppress(OSError):  # somebody else removes it too, or it is a link
            file = os.open(parent / name, _FOLDER)
            try:
                about = os.fstat(file)
                ours = about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) == 0o700
                if ours and _is_free(file):
                    _clear(parent / name)
            finally:
                os.close(file)


def _is_alive(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_free(folder: int) -> bool:
    """Whether no process has locked this open folder, as far as its file system knows."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _clear(place: Path) -> None:
    """Remove the files that are named, and the folders that are empty then. Anything else stays."""
    try:
        named = json.loads((place / _FILES).read_bytes())
    except (OSError, ValueError):
        named = []
    paths = [
        place / "tree" / path for path in named if isinstance(path, str) and ".." not in Path(path).parts
    ]
    paths = [path for path in paths if path.is_relative_to(place)]
    folders = {above for path in paths for above in path.parents if above.is_relative_to(place)}
    for path in (*paths, place / _FILES):
        with suppress(OSError):
            path.unlink()
    for folder in sorted({*folders, place / "tree", place}, key=lambda path: -len(path.parts)):
        with suppress(OSError):
            folder.rmdir()


def _appear(work: Path, folder: Path, named: Callable[[], None]) -> None:
    check_new(folder)
    try:
        work.rename(folder)
    except OSError:
        check_new(folder)  # another one of that name was quicker
        raise
    named()
