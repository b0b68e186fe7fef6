"""Results that appear together or not at all. Each is written to a temporary name in its folder
(``.NAME.part-PID-N``), and all are renamed at the end.

Several files cannot be renamed in one atomic step, so a kill may come in between. The order ensures that an old file is
then never combined with a new one: files that belong to the first result (its record, its tensors) are moved away
before it is replaced, and appear after it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from attrs import define

from lightx2v_core.checkpoint.interruption import uninterrupted
from lightx2v_core.checkpoint.locks import PLAIN, Lock, LockBusy, alive, free, mark
from lightx2v_core.errors import OutputError, RequestError

#: files written into a staged folder; no other file is ever removed from one
_OURS = re.compile(r"\d{5,}\.png|record\.json")
_PART = re.compile(r"\..+\.part-(?:(\d+)-\d+(?:-old)?|lock)", re.DOTALL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: seconds to wait for another process that renames results in the same folder, which takes milliseconds
_TURN = 30.0


@define
class _Part:
    """One staged result: ``name`` in the folder ``parent``; ``file`` is locked while it is open."""

    target: Path
    parent: int
    name: str
    file: int
    folder: bool
    #: temporary name of the previous file while results are renamed
    old: str | None = None
    #: True once it is renamed
    named: bool = False


class Staging:
    """A set of staged results."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._gone: list[_Part] = []
        self._parents: dict[Path, int] = {}
        self._made: list[Path] = []
        self._count = 0

    def file(self, path: Path) -> BinaryIO:
        """Create a file to write to. The first result is the main one, to which the others belong."""
        return os.fdopen(os.dup(self._stage(path, folder=False).file), "wb")

    def folder(self, path: Path) -> int:
        """Create a folder to write to; returns its descriptor. Raises ``OutputError`` if ``path`` is a folder that is
        not empty."""
        target = Path(os.path.realpath(path))  # a link to a folder cannot be replaced by one
        with unwritten(path):
            if target.is_dir() and any(target.iterdir()):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        return self._stage(target, folder=True).file

    def bytes(self, path: Path, data: bytes) -> None:
        """Write a small file. One inside a staged folder of frames appears and is removed with that folder."""
        folder = Path(os.path.realpath(path.parent))
        beside = next((part for part in self._parts if part.folder and part.target == folder), None)
        if beside is None:
            with unwritten(path), self.file(path) as stream:
                stream.write(data)
            return
        with unwritten(path):
            write_new(beside.file, path.name, data)

    def absent(self, path: Path) -> None:
        """Remove a file when the results are published, since it belongs to the results that they replace."""
        self._gone.append(
            _Part(target=path, parent=self._parent(path), name=self._free_name(path), file=-1, folder=False)
        )

    def publish(self, named: Callable[[], None] = lambda: None) -> None:
        """Rename all results to their final names, without interruption by signals. ``named`` is called afterwards,
        before a deferred signal is delivered. Raises ``OutputError`` if a rename fails; all renames are undone then."""
        uninterrupted(lambda: self._name_all(named))

    def discard(self) -> None:
        """Remove the results that are not published, and the folders created for them."""
        uninterrupted(self._discard)

    def _stage(self, path: Path, *, folder: bool) -> _Part:
        # without interruption between creating a file and registering it for removal
        uninterrupted(lambda: self._add(path, folder))
        return self._parts[-1]

    def _add(self, path: Path, folder: bool) -> None:
        parent = self._parent(path)
        with unwritten(path):
            while True:
                name = self._free_name(path)
                with suppress(
                    FileExistsError
                ):  # created exclusively: a link planted by another user has no effect
                    file = _made(name, parent, folder=folder)
                    break
            mark(file)
            self._parts.append(_Part(target=path, parent=parent, name=name, file=file, folder=folder))
            if folder and path.is_dir():
                os.fchmod(file, stat.S_IMODE(path.stat().st_mode))

    def _parent(self, path: Path) -> int:
        """Open the folder of a result; create it if missing, and remove the remains of dead processes in it."""
        folder = path.absolute().parent
        if folder not in self._parents:
            self._made += make_parents(path)
            with unwritten(path):
                self._parents[folder] = os.open(folder, _FOLDER)
            sweep(self._parents[folder])
        return self._parents[folder]

    def _free_name(self, path: Path) -> str:
        """Create a temporary name that is unique in this process and short enough for any file system."""
        self._count += 1
        return f".{path.name[:40]}.part-{os.getpid()}-{self._count}"

    def _name_all(self, named: Callable[[], None]) -> None:
        with _turn(list(self._parents.values())), ExitStack() as undo:
            for part in [*self._gone, *reversed(self._parts[1:])]:
                with unwritten(part.target):
                    self._set_aside(part, undo)
            for number, part in enumerate(self._parts):
                with unwritten(part.target):
                    if number == 0 and not part.folder:
                        self._keep(part, undo)
                    self._name(part, undo)
            undo.pop_all()
            named()
        for part in [*self._gone, *self._parts]:
            part.named = True
            if part.old is not None:
                with suppress(OSError):
                    os.unlink(part.old, dir_fd=part.parent)

    def _set_aside(self, part: _Part, undo: ExitStack) -> None:
        """Rename the previous file to a temporary name."""
        try:
            there = os.stat(part.target.name, dir_fd=part.parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part.old = f"{part.name}-old"
        _move(part.target.name, part.old, part.parent)
        undo.callback(_move, part.old, part.target.name, part.parent)

    def _keep(self, part: _Part, undo: ExitStack) -> None:
        """Give the previous file a second hard link, so that it can be restored and its name always exists."""
        old, folder = f"{part.name}-old", part.parent
        try:
            os.link(part.target.name, old, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        except (OSError, NotImplementedError):  # a folder, or a file system without hard links
            self._set_aside(part, undo)
            return
        part.old = old
        undo.callback(_put_back, old, part.target.name, folder)

    def _name(self, part: _Part, undo: ExitStack) -> None:
        _move(part.name, part.target.name, part.parent)
        if part.old is None:
            undo.callback(_move, part.target.name, part.name, part.parent)

    def _discard(self) -> None:
        for part in self._parts:
            if not part.named:
                with suppress(OSError):
                    _remove(part.name, part.parent)
            os.close(part.file)
        for parent in self._parents.values():
            os.close(parent)
        for folder in reversed(self._made):
            with suppress(OSError):  # not empty
                folder.rmdir()
        self._parts, self._gone, self._parents, self._made = [], [], {}, []


@contextmanager
def staging(named: Callable[[], None] = lambda: None) -> Iterator[Staging]:
    """Publish the results written in the block if it ends without an exception; otherwise remove them."""
    files = Staging()
    try:
        yield files
        files.publish(named)
    finally:
        files.discard()


@contextmanager
def claim_outputs(*paths: Path) -> Iterator[None]:
    """Lock these results, files or folders, against other processes while the block runs.

    Raises ``RequestError`` that names the process writing one of them, and ``OutputError`` if a folder is not
    writable.
    """
    claims = ExitStack()
    try:
        for path in sorted({_real(path) for path in paths}):
            uninterrupted(partial(_claim, path, claims))
        yield
    finally:
        uninterrupted(claims.close)


def is_claimed(path: Path) -> bool:
    """Return whether a process is writing this result, or was killed while writing it."""
    return os.path.lexists(path.with_name(_lock(path)))


def _claim(path: Path, claims: ExitStack) -> None:
    claims.callback(_remove_empty, make_parents(path))
    with unwritten(path):
        parent = os.open(path.parent, _FOLDER)
        claims.callback(os.close, parent)
        sweep(parent)
        lock = Lock(parent, _lock(path))
        claims.callback(lock.release)
        try:
            lock.acquire()
        except LockBusy as exc:
            raise RequestError(
                f"output {str(path)!r} is being written by {exc}; wait for it, or choose another output"
            ) from None


@contextmanager
def unwritten(path: Path) -> Iterator[None]:
    """Convert an ``OSError`` in the block to an ``OutputError`` that names the output."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OutputError(f"{str(path)!r} could not be written: {reason}; nothing was left behind") from exc


def make_parents(path: Path) -> list[Path]:
    """Create the folder of a file and its parents; returns the folders created. Raises ``OutputError`` on failure."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            with suppress(FileExistsError):  # created by another process meanwhile
                folder.mkdir()
                made.append(folder)
    except OSError as exc:
        _remove_empty(made)
        raise OutputError(f"cannot create folder {str(path.parent)!r}: {exc.strerror or exc}") from None
    return made


def write_new(folder: int, name: str, data: bytes) -> None:
    """Write a new file into an open folder. Raises ``FileExistsError`` if it exists."""
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN, 0o666, dir_fd=folder)
    with open(file, "wb") as stream:
        stream.write(data)


def sweep(folder: int) -> None:
    """Remove the temporary files that killed processes left in an open folder."""
    try:
        names = [name for name in os.listdir(folder) if ".part-" in name]
    except OSError:
        return
    for name in names:
        match = _PART.fullmatch(name)
        if match is not None:
            with suppress(OSError):  # another process may remove it too
                _sweep(name, folder, None if match[1] is None else int(match[1]))


def _sweep(name: str, folder: int, pid: int | None) -> None:
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kinds = (stat.S_ISREG, stat.S_ISDIR) if pid is not None else (stat.S_ISREG,)
    if there.st_uid != os.geteuid() or not any(kind(there.st_mode) for kind in kinds):
        return
    if pid not in (None, os.getpid()) and alive(int(pid or 0)):
        return
    file = os.open(name, os.O_RDONLY | PLAIN, dir_fd=folder)
    try:
        if free(file, unknown=pid not in (None, os.getpid())):
            _remove(name, folder)
    finally:
        os.close(file)


def _made(name: str, parent: int, *, folder: bool) -> int:
    if not folder:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | PLAIN, 0o666, dir_fd=parent)
    os.mkdir(name, dir_fd=parent)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)


def _move(old: str, new: str, folder: int) -> None:
    os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)


def _put_back(old: str, new: str, folder: int) -> None:
    _move(old, new, folder)
    with suppress(FileNotFoundError):  # renaming a hard link onto another link to the same file does nothing
        os.unlink(old, dir_fd=folder)


def _remove(name: str, parent: int) -> None:
    """Remove a staged file or folder. A folder that contains any file not written here is kept."""
    try:
        folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    try:
        names = os.listdir(folder)
        if all(_OURS.fullmatch(inside) for inside in names):
            for inside in names:
                os.unlink(inside, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _turn(folders: list[int]) -> Iterator[None]:
    """Lock these open folders while results in them are renamed, where the file system has locks."""
    distinct = {(os.fstat(folder).st_dev, os.fstat(folder).st_ino): folder for folder in folders}
    end = time.monotonic() + _TURN
    had = [folder for _, folder in sorted(distinct.items()) if _waited_for(folder, end)]
    try:
        yield
    finally:
        for folder in had:
            fcntl.flock(folder, fcntl.LOCK_UN)


def _waited_for(folder: int, end: float) -> bool:
    """Acquire the lock of an open folder; returns False if it is not free by the time ``end``. The holder may be
    suspended: renaming without the lock is better than losing the results."""
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return False


def _lock(path: Path) -> str:
    """Return the name of a result's lock file; a long result name is shortened with a hash."""
    name = path.name
    if len(os.fsencode(name)) > 100:
        name = f"{name[:20]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return f".{name}.part-lock"


def _real(path: Path) -> Path:
    """Return an absolute path; if it is a link to a folder, that folder."""
    return Path(os.path.realpath(path)) if path.is_dir() else path.absolute()
