"""The folder of a model, and the small files in it that say what its network is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lightx2v_core.checkpoint.hub_cache import hub_folder, is_repository
from lightx2v_core.checkpoint.listing import broken_link, filesystem_errors, list_folder, why_not
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.errors import CheckpointError, shortened, suggestion

#: names that a wrong one is compared with: comparing is slow
_COMPARED = 1000
#: names in a folder that messages show
_LISTED = 12


def model_folder(path: str | Path) -> Path:
    """Return the folder a user named; ``CheckpointError`` when it is none, or may not be looked into."""
    folder = expanded(path)
    if reason := why_not(folder):
        hub = ""
        if is_repository(str(path)):
            hub = (
                f"; nor is a repository of this name in the hub's cache ({hub_folder()}): lightx2v-core download "
                f"{path} --to models/{folder.name}"
            )
        raise CheckpointError(f"model folder {short(str(path))} {reason}{near(folder)}{hub}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; give the folder that holds the model's files"
        )
    with filesystem_errors(folder), os.scandir(folder) as entries:
        empty = all(entry.name.startswith(".") for entry in entries)
    if empty:
        raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` replaced, as it is where that cannot be done."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # an unknown ~user
        return Path(path)


def near(folder: Path) -> str:
    """Say what else is there, for a folder that is not."""
    try:
        parent = next((p for p in folder.parents if os.path.isdir(p)), None)
        names = [] if parent is None else [name for name in list_folder(parent).folders if name[:1] != "."]
    except CheckpointError:
        return ""
    if parent is None or os.path.lexists(folder):
        return ""
    if hint := suggestion(folder.relative_to(parent).parts[0], names[:_COMPARED]):
        return f"{hint} (in {str(parent)!r})"
    return f"; {str(parent)!r} holds: {', '.join(names[:8])}" if names else ""


def visible(folder: Path) -> list[str]:
    """List the names of what is in a folder, in order, without hidden entries: download caches, files of the system."""
    with filesystem_errors(folder):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def listing(folder: Path) -> str:
    """Say what a folder holds, in a few words."""
    names = visible(folder)
    shown = [name + ("/" if os.path.isdir(folder / name) else "") for name in names[:_LISTED]]
    return f"it holds {shortened([*shown, *names[_LISTED:]], _LISTED)}" if names else "it holds nothing"


def read_network_config(folder: Path) -> dict[str, object]:
    """``config.json`` of a folder, ``{}`` when there is none."""
    path = folder / "config.json"
    if target := broken_link(path):
        raise CheckpointError(
            f"{path} is a link to {target}, which does not exist; copy that too, or download it again"
        )
    return read_object(path, "is damaged") if os.path.isfile(path) else {}


def first_network_config(folders: Iterable[Path]) -> dict[str, object]:
    """Read ``config.json`` of the first of some folders that has one; ``{}`` when none has. ``CheckpointError`` when
    it is damaged."""
    for folder in folders:
        if config := read_network_config(folder):
            return config
    return {}


def short(text: str) -> str:
    """Return a path as it was given, quoted, with its middle left out when it is endless."""
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
