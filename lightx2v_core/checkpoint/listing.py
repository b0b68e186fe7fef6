"""Folder listings that tell files from folders and broken links, and the errors of paths that cannot be accessed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from lightx2v_core.errors import CheckpointError

#: characters of a link's target that a message shows
_SHOWN = 200

#: reason for a path without a file; other reasons are those of the operating system
ABSENT = "does not exist"


@frozen(kw_only=True)
class Listing:
    """The sorted names in a folder. Names that start with a dot are left out: operating systems and programs create
    them, such as the AppleDouble files of macOS. A link counts as its target."""

    folder: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    #: broken link -> its target
    dangling: Mapping[str, str]
    #: entry that cannot be accessed -> reason
    unreadable: Mapping[str, str]


def list_folder(folder: Path) -> Listing:
    """List a folder with one system call, and one more for each link. Raises ``CheckpointError`` if the folder cannot
    be accessed."""
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
    """List the names of the files in a file's folder, sorted, without hidden ones; empty if it cannot be accessed."""
    try:
        return list_folder(file.parent).files
    except CheckpointError:
        return ()


def broken_link(path: Path) -> str:
    """Return the target of a broken link, shortened; empty for any other path."""
    try:
        if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):
            return os.readlink(path)[:_SHOWN]
    except (OSError, ValueError):
        pass
    return ""


def why_not(path: Path) -> str:
    """Explain why a path cannot be accessed: it does not exist, or the operating system refuses; empty if it can be."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        target = broken_link(path)
        return f"is a link to {target}, which does not exist" if target else ABSENT
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            return f"{ABSENT}: the name is too long for a file"
        return f"cannot be accessed: {exc.strerror or exc}"
    except ValueError:  # a NUL, or half a surrogate pair
        return f"{ABSENT}: invalid file name"
    return ""


@contextmanager
def filesystem_errors(path: Path | None = None) -> Iterator[None]:
    """Convert an ``OSError`` in the block, or in the decorated function, to a ``CheckpointError`` that names the file
    or folder; ``path`` if the ``OSError`` names none."""
    try:
        yield
    except OSError as exc:
        name = exc.filename if isinstance(exc.filename, str) else str(path or "a file")
        name = name if len(name) <= 300 else f"{name[:300]}..."
        raise CheckpointError(f"{name} cannot be accessed: {exc.strerror or exc}") from None
