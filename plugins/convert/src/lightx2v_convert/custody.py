"""Whose the folder of a conversion is: looked through before anything in it is touched, and locked.

Only what the notes of a conversion name is ever removed, and a folder that holds anything else is left alone. Names are
looked up in the open folder and no link is followed, so that whoever may write beside the result cannot lead elsewhere.
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

#: how far each file has come, and the names of all
NOTES = "progress.json"
NEW_NOTES = f"{NOTES}.new"
#: the folder where a result of several files is put together
WHOLE = "whole"
#: marks notes as ours; the number of their format
MARK = "lightx2v_convert"
FORMAT = 1
#: flags for a file that somebody else may have put there: no link is followed, no pipe is waited for
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: how to open a folder that may be somebody else's
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = "lock"
_LOCKS = re.compile(rf"{_LOCK}(\.owner(\.\d+)?)?")
_LARGEST = 1 << 28


@frozen(kw_only=True)
class OpenWorkspace:
    """An open workspace that holds nothing but what a conversion wrote, locked."""

    folder: int
    lock: Lock
    notes: dict[str, Any] | None

    @property
    def unfinished(self) -> bool:
        """Whether files in the making are there."""
        return any(name == WHOLE or name.endswith(".part") for name in os.listdir(self.folder))

    def clear(self, notes: Mapping[str, Any] | None) -> None:
        """Remove the files in the making that some notes name."""
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
        """Unlock the workspace; what is in it stays."""
        with suppress(OSError):  # of a kill: without the lock beside it, it would look like somebody else's
            os.unlink(NEW_NOTES, dir_fd=self.folder)
        self.lock.release()
        os.close(self.folder)


def open_workspace(folder: Path, output: Path) -> OpenWorkspace:
    """Look through the workspace at ``folder``, and lock it. ``FileNotFoundError`` when it is gone by now;
    ``RequestError`` when another process is at it, or it holds anything that no conversion wrote."""
    if folder.is_symlink() or not folder.is_dir():
        os.lstat(folder)
        what = f"a link to {os.readlink(folder)!r}" if folder.is_symlink() else "no folder"
        raise RequestError(
            f"{str(folder)!r}, where {output.name} is made, is {what}; nothing was touched: remove it, or name another "
            "--output"
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
                f"output {str(output)!r} is being written by {exc}; wait for it, or name another --output"
            ) from None
        except BaseException:
            lock.release()
            raise
    except BaseException:
        os.close(opened)
        raise


def _check_ours(opened: int, folder: Path) -> dict[str, Any] | None:
    """The notes of an open workspace. ``RequestError`` when somebody else can write in it, or something in it is not
    from a conversion."""
    about = os.fstat(opened)
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise RequestError(
            f"{str(folder)!r} belongs to another user or can be written to by others; nothing was touched: remove it, "
            "or name another --output"
        )
    notes = _read_notes(opened)
    names = sorted(os.listdir(opened))
    known = set() if notes is None else {NOTES, *(f"{name}.part" for name in notes["names"])}
    if any(_LOCKS.fullmatch(name) for name in names):
        known.add(NEW_NOTES)  # as a kill leaves it; a lock is the first thing that is made
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
            f"{str(folder)!r} holds what no conversion wrote: {', '.join(map(repr, foreign[:5]))}{more}; nothing was "
            "touched: move that away or remove the folder, or name another --output"
        )
    return notes


def _foreign(opened: int, known: set[str]) -> list[str]:
    """What does not belong into the folder that is put together."""
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
    """The notes of a conversion; ``None`` when there are none."""
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
    """Whether notes are of this format. Names are of files in the folder and nowhere else."""
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
