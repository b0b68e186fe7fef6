"""What of a download is in the folder already, and the records of it.

A record lies at ``.cache/huggingface/download/FILE.metadata``: the commit, the ETag and the time, a line each. It is
the format of huggingface_hub's own downloads into a folder, so what ``hf download --local-dir`` fetched is known here,
and the other way round. What is not whole yet lies beside the records and never under its own name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lightx2v_core.api import Lock, LockBusy, OutputError, RequestError
from lightx2v_hub.remote import RECORDS, RemoteFile
from lightx2v_hub.selection import DownloadFile

_DOWNLOADS = f"{RECORDS}/download"
#: bytes read at once while a file is hashed
_CHUNK = 8 << 20


@frozen(kw_only=True)
class FileState:
    """What there is of a file to fetch."""

    file: DownloadFile
    #: its path in the folder
    path: Path = field(repr=str)
    #: where it grows until it is whole
    partial: Path
    #: ``whole``; ``unrecorded``: as large as the repository's, and its hash is not known; ``changed``: the repository
    #: has a newer one; ``other``: another file of that name; ``begun``; ``absent``
    status: str
    #: bytes that need not be fetched
    present: int

    @property
    def missing(self) -> int:
        return self.file.remote.size - self.present


def file_states(folder: Path, files: Iterable[DownloadFile]) -> tuple[FileState, ...]:
    """Examine what there is of every file, by sizes, times and records. ``OutputError`` when a folder is in the way."""
    return tuple(_state(folder, file) for file in files)


def _state(folder: Path, file: DownloadFile) -> FileState:
    remote, path = file.remote, folder / file.target
    partial = (
        folder
        / _DOWNLOADS
        / f"{hashlib.sha1(file.target.encode()).hexdigest()[:16]}.{remote.etag}.incomplete"
    )
    status, present = _there(folder, file)
    if status in ("absent", "changed"):
        begun = partial.stat().st_size if partial.is_file() else 0
        present = begun if begun <= remote.size else 0
        status = "begun" if present and status == "absent" else status
    return FileState(file=file, path=path, partial=partial, status=status, present=present)


def _there(folder: Path, file: DownloadFile) -> tuple[str, int]:
    """What lies under the name of a file, and how many of its bytes."""
    remote, path = file.remote, folder / file.target
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder, and {remote.repo}/{remote.path} is to be written there")
        stat = path.stat()
    except FileNotFoundError:
        return "absent", 0
    except NotADirectoryError:
        raise OutputError(f"{path} cannot be written: a file is where its folder should be") from None
    except OSError as exc:
        raise OutputError(f"{path} cannot be looked at: {exc.strerror}") from exc
    recorded = _record(folder, file.target)
    if recorded is not None and stat.st_mtime - 1 <= recorded[1]:
        if recorded[0] != remote.etag:
            return "changed", 0
        if stat.st_size == remote.size:
            return "whole", remote.size
    return ("unrecorded", remote.size) if stat.st_size == remote.size else ("other", 0)


def _record(folder: Path, target: str) -> tuple[str, float] | None:
    """ETag and time of a record; ``None`` without a readable one."""
    try:
        _, etag, when = _record_path(folder, target).read_text(encoding="utf-8").split("\n")[:3]
        return etag.strip(), float(when)
    except (OSError, ValueError):  # absent or damaged: the file itself is looked at instead
        return None


def _record_path(folder: Path, target: str) -> Path:
    return folder / _DOWNLOADS / f"{target}.metadata"


def write_record(folder: Path, file: DownloadFile) -> None:
    """Note that a file is whole, of this version, as of now."""
    path = _record_path(folder, file.target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{file.remote.commit}\n{file.remote.etag}\n{time.time()}\n", encoding="utf-8")


def new_hash(remote: RemoteFile) -> Any:
    """Make the hash that a file is known by, to be fed its content."""
    if remote.sha256 is not None:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {remote.size}\0".encode())  # what git calls a file by


def feed(hashing: Any, path: Path, report: Callable[[int], None]) -> Any:
    """Feed a hash the content of a file, and return it; ``report`` gets the bytes of each piece."""
    with path.open("rb") as content:
        while piece := content.read(_CHUNK):
            hashing.update(piece)
            report(len(piece))
    return hashing


def check_space(folder: Path, needed: int) -> None:
    """Raise ``OutputError`` when the disk of a folder has not this many bytes left."""
    free = free_bytes(folder)
    if needed > free:
        raise OutputError(
            f"{folder} has {in_words(free)} left and {in_words(needed)} are to be fetched; free "
            f"{in_words(needed - free)}, or name another folder with --to"
        )


def free_bytes(folder: Path) -> int:
    """Count the bytes left where a folder is or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for one download. ``RequestError`` when another one has it, ``OutputError`` when it cannot be
    written."""
    place = folder / RECORDS
    with ExitStack() as opened:
        try:
            (folder / _DOWNLOADS).mkdir(parents=True, exist_ok=True)
            ignore = place / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            there = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, there)
            lock = Lock(there, "lightx2v-core.lock")
            opened.callback(lock.release)
            lock.acquire()
        except LockBusy as exc:
            raise RequestError(
                f"another download is writing to {folder}: {exc}; wait for it, or stop it"
            ) from None
        except OSError as exc:
            raise OutputError(
                f"{folder} cannot be written: {exc.strerror or exc}; name another with --to"
            ) from exc
        yield


def drop_stale(states: Sequence[FileState]) -> None:
    """Remove what was begun of other versions of these files."""
    for state in states:
        stem = state.partial.name.partition(".")[0]
        for path in state.partial.parent.glob(f"{stem}.*.incomplete"):
            if path != state.partial:
                path.unlink(missing_ok=True)


def publish(state: FileState, folder: Path) -> None:
    """Give a whole file its name, in one step, and note it."""
    state.path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(state.partial, state.path)
    write_record(folder, state.file)


def in_words(size: int) -> str:
    """Write bytes as people read them."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} byte{'s' if size != 1 else ''}"
