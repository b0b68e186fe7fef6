"""What is in a folder, looked at once: a file cannot be told from a folder by its name, and some can be neither."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from lightx2v_core.errors import CheckpointError

#: characters of what a link leads to that a message shows
_SHOWN = 200

#: what a path without a file behind it is; other reasons are those of the system
ABSENT = "does not exist"


@frozen(kw_only=True)
class Listing:
    """The names in a folder, in order, without hidden ones: what begins with a dot is of systems and programs, such as
    the file that macOS keeps beside every other one on some disks. Links count as what they lead to."""

    folder: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    #: links that lead nowhere -> where that is
    dangling: Mapping[str, str]
    #: what cannot be looked at -> why
    unreadable: Mapping[str, str]


def list_folder(folder: Path) -> Listing:
    """Look into a folder: one call of the system, and one more for each link. ``CheckpointError`` when it may not, or
    cannot, be looked into."""
    files, folders, dangling, unreadable = [], [], {}, {}
    with filesystem_errors(folder), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_file():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_symlink() and not os.path.lexists(os.path.realpath(entry.path)):
                    dangling[entry.name] = os.readlink(entry.path)
            except OSError as exc:
                unreadable[entry.name] = exc.strerror or str(exc)
    return Listing(
        folder=folder,
        files=tuple(sorted(files)),
        folders=tuple(sorted(folders)),
        dangling=dict(sorted(dangling.items())),
        unreadable=dict(sorted(unreadable.items())),
    )


def sibling_files(file: Path) -> tuple[str, ...]:
    """List the names of the files in a file's folder, sorted, without hidden ones; none when it may not be looked
    into."""
    try:
        return list_folder(file.parent).files
    except CheckpointError:
        return ()


def broken_link(path: Path) -> str:
    """Find where a link leads that leads nowhere; empty for whatever is no such link."""
    try:
        if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):
            return os.readlink(path)[:_SHOWN]
    except (OSError, ValueError):
        pass
    return ""


def why_not(path: Path) -> str:
    """Say why there is nothing to be had at a path: it does not exist, or the system does not let it be looked at;
    empty when it can be."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        target = broken_link(path)
        return f"is a link to {target}, which does not exist" if target else ABSENT
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            return f"{ABSENT}: no file can have so long a name"
        return f"cannot be looked at: {exc.strerror or exc}"
    except ValueError:  # a NUL, or half a surrogate pair
        return f"{ABSENT}: no file can have such a name"
    return ""


@contextmanager
def filesystem_errors(path: Path | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the block, or of a function that this decorates, into a ``CheckpointError`` that names
    the file or folder; ``path`` when the system names none."""
    try:
        yield
    except OSError as exc:
        name = exc.filename if isinstance(exc.filename, str) else str(path or "a file")
        name = name if len(name) <= 300 else f"{name[:300]}..."
        raise CheckpointError(f"{name} cannot be looked at: {exc.strerror or exc}") from None
