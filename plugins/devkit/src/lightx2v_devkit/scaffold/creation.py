"""Atomic creation of a new distribution: the complete folder or nothing."""

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

#: list of the files being written
_FILES = "files.json"
#: work folder of a process, with its process id
_PLACE = re.compile(r"\..+\.new-(\d{1,9})", re.DOTALL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def admitting(version: str) -> str:
    """Return the core versions that a plugin written for ``version`` supports: the same minor version.

    The next minor version may remove names deprecated in this one. A pre-release is the lower bound itself.
    """
    from packaging.version import Version

    this = Version(version)
    least = str(this) if this.is_prerelease else f"{this.major}.{this.minor}"
    return f">={least},<{this.major}.{this.minor + 1}"


def check_new(folder: Path) -> None:
    """Raise ``RequestError`` if ``folder`` exists or its parent is not a folder."""
    if os.path.lexists(folder):
        raise RequestError(f"{str(folder)!r} already exists; choose another --output, or remove it")
    if not folder.absolute().parent.is_dir():
        raise RequestError(
            f"{str(folder.absolute().parent)!r} is not a folder, so {folder.name!r} cannot be created in it"
        )


def create(folder: Path, contents: Mapping[str, bytes], named: Callable[[], None] = lambda: None) -> None:
    """Create ``folder`` with these files (path -> content), atomically.

    ``named`` is called once the folder exists, before a signal that arrived meanwhile takes effect. Raises
    ``OutputError`` on failure and leaves nothing behind. Remains of a killed process are removed by the next call for
    the same parent folder.
    """
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
    """A hidden folder next to the result, so that the last step is a single rename.

    It contains the ``tree`` being written and the list of its files, which is written first: after a kill, the next
    process removes only these.
    """

    def __init__(self, folder: Path) -> None:
        self._parent = folder.absolute().parent
        self._place = self._parent / f".{folder.name[:40]}.new-{os.getpid()}"
        self.tree = self._place / "tree"
        self._file: int | None = None

    def begin(self, contents: Mapping[str, bytes]) -> None:
        """Create and lock the work folder, and remove those of dead processes."""
        _sweep(self._parent)
        self._place.mkdir(0o700)
        self._file = os.open(self._place, _FOLDER)
        with suppress(OSError):  # without locks, other processes check the process id
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self._place / _FILES).write_text(json.dumps(list(contents)))
        self.tree.mkdir()

    def end(self) -> None:
        """Remove the work folder."""
        if self._file is not None:
            _clear(self._place)
            os.close(self._file)
            self._file = None


def _sweep(parent: Path) -> None:
    """Remove the work folders of killed processes."""
    for name in os.listdir(parent):
        match = _PLACE.fullmatch(name)
        if match is None or (int(match[1]) != os.getpid() and _is_alive(int(match[1]))):
            continue
        with suppress(OSError):  # another process removes it too, or it is a link
            file = os.open(parent / name, _FOLDER)
            try:
                about = os.fstat(file)
                ours = about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) == 0o700
                if ours and _is_free(file):
                    _clear(parent / name)
            finally:
                os.close(file)


def _is_alive(pid: int) -> bool:
    """Return whether a process with this id exists on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_free(folder: int) -> bool:
    """Return whether no process holds a lock on this open folder; True if its file system has no locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _clear(place: Path) -> None:
    """Remove the listed files and the folders that become empty. Keep anything else."""
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
        check_new(folder)  # another process created it first
        raise
    named()
