"""State of a download in its folder: whole files, partial files, and their records.

A record is a file ``.cache/huggingface/download/FILE.metadata`` with three lines: the commit, the ETag and the time.
This is huggingface_hub's own format, so files fetched with ``hf download --local-dir`` are recognized here, and vice
versa. Partial files are stored next to the records, never under their final names.
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
#: bytes per read while hashing a file
_CHUNK = 8 << 20


@frozen(kw_only=True)
class FileState:
    """The state of one file in the folder."""

    file: DownloadFile
    #: path in the folder
    path: Path = field(repr=str)
    #: path of the partial file
    partial: Path
    #: ``whole``; ``unrecorded``: the size matches, the hash is unknown; ``changed``: the repository has a newer
    #: version; ``other``: a different file with that name; ``begun``: partial; ``absent``
    status: str
    #: bytes already downloaded
    present: int

    @property
    def missing(self) -> int:
        """Return the bytes left to download."""
        return self.file.remote.size - self.present


def file_states(folder: Path, files: Iterable[DownloadFile]) -> tuple[FileState, ...]:
    """Determine the state of every file from sizes, times and records.

    Raises ``OutputError`` when a path is a folder or cannot be accessed.
    """
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
    """Return the state of the file under its final name, and the number of its bytes to keep."""
    remote, path = file.remote, folder / file.target
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder, so {remote.repo}/{remote.path} cannot be saved there")
        stat = path.stat()
    except FileNotFoundError:
        return "absent", 0
    except NotADirectoryError:
        raise OutputError(f"cannot write {path}: its folder is a file") from None
    except OSError as exc:
        raise OutputError(f"cannot access {path}: {exc.strerror}") from exc
    recorded = _record(folder, file.target)
    if recorded is not None and stat.st_mtime - 1 <= recorded[1]:
        if recorded[0] != remote.etag:
            return "changed", 0
        if stat.st_size == remote.size:
            return "whole", remote.size
    return ("unrecorded", remote.size) if stat.st_size == remote.size else ("other", 0)


def _record(folder: Path, target: str) -> tuple[str, float] | None:
    """Read ETag and time of a record; ``None`` without a readable record."""
    try:
        _, etag, when = _record_path(folder, target).read_text(encoding="utf-8").split("\n")[:3]
        return etag.strip(), float(when)
    except (OSError, ValueError):  # absent or damaged: the file itself is checked instead
        return None


def _record_path(folder: Path, target: str) -> Path:
    return folder / _DOWNLOADS / f"{target}.metadata"


def write_record(folder: Path, file: DownloadFile) -> None:
    """Write the record of a whole file, with its version and the current time."""
    path = _record_path(folder, file.target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{file.remote.commit}\n{file.remote.etag}\n{time.time()}\n", encoding="utf-8")


def new_hash(remote: RemoteFile) -> Any:
    """Create the hash object for the ETag of a file, to be fed its content."""
    if remote.sha256 is not None:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {remote.size}\0".encode())  # hash of a git blob


def feed(hashing: Any, path: Path, report: Callable[[int], None]) -> Any:
    """Update a hash with the content of a file and return it; ``report`` gets the bytes of each chunk."""
    with path.open("rb") as content:
        while piece := content.read(_CHUNK):
            hashing.update(piece)
            report(len(piece))
    return hashing


def check_space(folder: Path, needed: int) -> None:
    """Raise ``OutputError`` when the disk of ``folder`` has fewer than ``needed`` bytes free."""
    free = free_bytes(folder)
    if needed > free:
        raise OutputError(
            f"not enough space in {folder}: {format_size(needed)} to download, {format_size(free)} free; free another "
            f"{format_size(needed - free)}, or choose another folder with --to"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which may not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder for one download.

    Raises ``RequestError`` when another download has locked it, and ``OutputError`` when it is not writable.
    """
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
                f"cannot write to {folder}: {exc.strerror or exc}; choose another folder with --to"
            ) from exc
        yield


def drop_stale(states: Sequence[FileState]) -> None:
    """Remove partial files of other versions of these files."""
    for state in states:
        stem = state.partial.name.partition(".")[0]
        for path in state.partial.parent.glob(f"{stem}.*.incomplete"):
            if path != state.partial:
                path.unlink(missing_ok=True)


def publish(state: FileState, folder: Path) -> None:
    """Rename a whole file to its final name atomically, and record it."""
    state.path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(state.partial, state.path)
    write_record(folder, state.file)


def format_size(size: int) -> str:
    """Format a number of bytes with a binary unit."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} byte{'s' if size != 1 else ''}"
