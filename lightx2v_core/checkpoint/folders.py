"""The folder of a model, and the small files in it that say what its network is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightx2v_core.checkpoint.listing import listed, looking, why_not
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.errors import CheckpointError, suggestion

#: names that a wrong one is compared with: comparing is slow
_COMPARED = 1000


def model_folder(path: str | Path) -> Path:
    """The folder a user named; ``CheckpointError`` when it is none, or may not be looked into."""
    folder = expanded(path)
    if reason := why_not(folder):
        raise CheckpointError(f"model folder {short(str(path))} {reason}{near(folder)}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; give the folder that holds the model's files"
        )
    with looking(folder), os.scandir(folder) as entries:
        if next(entries, None) is None:
            raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path:
    """A path with ``~`` replaced, as it is where that cannot be done."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # an unknown ~user
        return Path(path)


def near(folder: Path) -> str:
    """What else is there, for a folder that is not."""
    try:
        parent = next((p for p in folder.parents if os.path.isdir(p)), None)
        names = [] if parent is None else [name for name in listed(parent).folders if name[:1] != "."]
    except CheckpointError:
        return ""
    if parent is None or os.path.lexists(folder):
        return ""
    if found := suggestion(folder.relative_to(parent).parts[0], names[:_COMPARED]):
        return f"{found} (in {str(parent)!r})"
    return f"; {str(parent)!r} holds: {', '.join(names[:8])}" if names else ""


def visible(folder: Path) -> list[str]:
    """The names of what is in a folder, in order, without hidden entries: download caches, files of the system."""
    with looking(folder):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, ``{}`` when there is none."""
    path = folder / "config.json"
    return read_object(path, "is damaged") if os.path.isfile(path) else {}


def first_config(folders: Iterable[Path]) -> dict[str, Any]:
    """``config.json`` of the first of some folders that has one, ``{}`` when none has."""
    for folder in folders:
        if found := read_config(folder):
            return found
    return {}


def short(text: str) -> str:
    """A path as it was given, quoted, with its middle left out when it is endless."""
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
