"""Writes a new distribution: the whole folder or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from lightx2v_core.errors import OutputError, RequestError
from lightx2v_core.interruption import uninterrupted


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
    is left."""
    check_new(folder)
    made: list[Path] = []

    def begin() -> None:
        # beside its place, so that the last step is one renaming
        made.append(Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent)))

    try:
        try:
            uninterrupted(begin)
            (work,) = made
            for path, data in contents.items():
                file = work / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            work.chmod(0o777 & ~_umask())  # mkdtemp is for its owner only
            uninterrupted(partial(_appear, work, folder, named))
        finally:
            for work in made:
                uninterrupted(partial(shutil.rmtree, work, ignore_errors=True))
    except OSError as exc:
        reason = exc.strerror or exc
        raise OutputError(f"{str(folder)!r} could not be written: {reason}; nothing was left behind") from exc


def _appear(work: Path, folder: Path, named: Callable[[], None]) -> None:
    check_new(folder)
    try:
        work.rename(folder)
    except OSError:
        check_new(folder)  # another one of that name was quicker
        raise
    named()


def _umask() -> int:
    """The process has no way to ask for it but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
