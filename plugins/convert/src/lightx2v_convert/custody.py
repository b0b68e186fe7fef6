"""Ownership of the work folder of a conversion: it is verified and locked before anything in it is touched.

Only files listed in the notes of a conversion are ever removed, and a folder with anything else is left alone. Names
are resolved in the open folder without following links, so that other users with write access next to the result cannot
redirect writes.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.api import RequestError
from lightx2v_core.weights import Lock, LockBusy

#: notes: progress of each file, and the names of all files
NOTES = "progress.json"
NEW_NOTES = f"{NOTES}.new"
#: folder in which a result of several files is assembled
WHOLE = "whole"
#: key that identifies our notes, and their format version
MARK = "lightx2v_convert"
FORMAT = 1
#: flags for files that others may have created: do not follow links, do not block on pipes
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: flags for folders that others may have created
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = "lock"
_LOCKS = re.compile(rf"{_LOCK}(\.owner(\.\d+)?)?")
_LARGEST = 1 << 28


@frozen(kw_only=True)
class OpenWorkspace:
    """An open, locked workspace with nothing but files of a conversion."""

    #: file descriptor of the folder
    folder: int
    lock: Lock
    #: notes of the conversion; None if there are none
    notes: dict[str, Any] | None

    @property
    def unfinished(self) -> bool:
        """Return whether there are unfinished files."""
        return any(name == WHOLE or name.endswith(".part") for name in os.listdir(self.folder))

    def clear(self, notes: Mapping[str, Any] | None) -> None:
        """Remove the unfinished files listed in ``notes``."""
        names = [] if notes is None else notes["names"]
        others = [] if notes is None else notes["others"]
        for name in (*(f"{name}.part" for name in names), NEW_NOTES):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.folder)
        with suppress(FileNotFoundError):
            whole = os.open(WHOLE, FOLDER, dir_fd=self.folder)
            try:
                for name in (*names, *others):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=whole)
            finally:
                os.close(whole)
            os.rmdir(WHOLE, dir_fd=self.folder)

    def close(self) -> None:
        """Release the lock and keep the content of the workspace."""
        with suppress(
            OSError
        ):  # left by a kill: without a lock next to it, it would look like a foreign file
            os.unlink(NEW_NOTES, dir_fd=self.folder)
        self.lock.release()
        os.close(self.folder)


def open_workspace(folder: Path, output: Path) -> OpenWorkspace:
    """Verify and lock the workspace at ``folder``.

    Raises ``FileNotFoundError`` if it no longer exists, ``RequestError`` if another process uses it or it contains
    files that no conversion wrote.
    """
    if folder.is_symlink() or not folder.is_dir():
        os.lstat(folder)
        what = f"a link to {os.readlink(folder)!r}" if folder.is_symlink() else "not a folder"
        raise RequestError(
            f"{str(folder)!r}, the work folder of {output.name}, is {what}; nothing was changed: remove it, or choose "
            "another --output"
        )
    opened = os.open(folder, FOLDER)
    try:
        _check_ours(opened, folder)
        lock = Lock(opened, _LOCK)
        try:
            lock.acquire()
            if not os.path.samestat(os.stat(folder, follow_symlinks=False), os.fstat(opened)):
                raise FileNotFoundError
            return OpenWorkspace(folder=opened, lock=lock, notes=_check_ours(opened, folder))
        except LockBusy as exc:
            lock.release()
            raise RequestError(
                f"output {str(output)!r} is being written by {exc}; wait for it, or choose another --output"
            ) from None
        except BaseException:
            lock.release()
            raise
    except BaseException:
        os.close(opened)
        raise


def _check_ours(opened: int, folder: Path) -> dict[str, Any] | None:
    """Return the notes of an open workspace; None if there are none.

    Raises ``RequestError`` if other users can write to it, or it contains files that no conversion wrote.
    """
    about = os.fstat(opened)
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise RequestError(
            f"{str(folder)!r} belongs to another user or is writable by others; nothing was changed: remove it, or "
            "choose another --output"
        )
    notes = _read_notes(opened)
    names = sorted(os.listdir(opened))
    known = set() if notes is None else {NOTES, *(f"{name}.part" for name in notes["names"])}
    if any(_LOCKS.fullmatch(name) for name in names):
        known.add(NEW_NOTES)  # may be left by a kill; the lock is created first
    foreign = [
        name
        for name in names
        if not (_LOCKS.fullmatch(name) or name in known) or not _regular(name, opened)
        if not (name == WHOLE and notes is not None)
    ]
    if WHOLE in names and notes is not None:
        foreign += _foreign(opened, {*notes["names"], *notes["others"]})
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise RequestError(
            f"{str(folder)!r} contains files that no conversion wrote: {', '.join(map(repr, foreign[:5]))}{more}; "
            "nothing was changed: move them away or remove the folder, or choose another --output"
        )
    return notes


def _foreign(opened: int, known: set[str]) -> list[str]:
    """List all foreign files in the folder being assembled."""
    try:
        whole = os.open(WHOLE, FOLDER, dir_fd=opened)
    except OSError:  # a link, or a file
        return [WHOLE]
    try:
        return [
            f"{WHOLE}/{name}"
            for name in sorted(os.listdir(whole))
            if name not in known or not _regular(name, whole)
        ]
    finally:
        os.close(whole)


def _read_notes(opened: int) -> dict[str, Any] | None:
    """Read the notes of a conversion; ``None`` if there are none."""
    try:
        with os.fdopen(os.open(NOTES, os.O_RDONLY | PLAIN, dir_fd=opened), "rb") as stream:
            about = os.fstat(stream.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                return None
            notes = json.loads(stream.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return notes if isinstance(notes, dict) and _valid(notes) else None


def _valid(notes: Mapping[str, Any]) -> bool:
    """Return whether notes have this format, and all names are plain file names."""
    names, files = [notes.get("names"), notes.get("others")], notes.get("files")
    return (
        notes.get(MARK) == FORMAT
        and isinstance(notes.get("job"), str)
        and isinstance(notes.get("report"), dict)
        and all(isinstance(part, list) and all(_is_name(name) for name in part) for part in names)
        and isinstance(files, dict)
        and all(
            isinstance(progress, dict)
            and all(type(progress.get(key)) is int and progress[key] >= 0 for key in ("tensors", "bytes"))
            for progress in files.values()
        )
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _regular(name: str, folder: int) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
