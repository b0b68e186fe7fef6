"""The folder of a model, and the small JSON files in it that describe its network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lightx2v_core.checkpoint.hub_cache import hub_folder, is_repository
from lightx2v_core.checkpoint.listing import broken_link, filesystem_errors, list_folder, why_not
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.errors import CheckpointError, shortened, suggestion

#: names that an unknown one is compared with for a suggestion; comparing is slow
_COMPARED = 1000
#: names in a folder that messages show
_LISTED = 12


def model_folder(path: str | Path) -> Path:
    """Return the folder that ``path`` names. Raises ``CheckpointError`` if it is not a folder, is empty, or may not be
    read."""
    folder = expanded(path)
    if reason := why_not(folder):
        hub = ""
        if Path(path).parent == Path("models"):  # where downloads go, and no owner of repositories
            hub = f"; to download it: lightx2v-core download {folder.name} --to {path}"
        elif is_repository(str(path)):
            hub = (
                f"; no repository of this name is in the hub cache ({hub_folder()}) either; to download it: "
                f"lightx2v-core download {path} --to models/{folder.name}"
            )
        raise CheckpointError(f"model folder {short(str(path))} {reason}{near(folder)}{hub}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; use the folder that contains the model's files"
        )
    with filesystem_errors(folder), os.scandir(folder) as entries:
        empty = all(entry.name.startswith(".") for entry in entries)
    if empty:
        raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` expanded; unchanged if the user is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # an unknown ~user
        return Path(path)


def near(folder: Path) -> str:
    """Suggest a similar name, or list the folders in the nearest parent, for a folder that does not exist."""
    try:
        parent = next((p for p in folder.parents if os.path.isdir(p)), None)
        names = [] if parent is None else [name for name in list_folder(parent).folders if name[:1] != "."]
    except CheckpointError:
        return ""
    if parent is None or os.path.lexists(folder):
        return ""
    if hint := suggestion(folder.relative_to(parent).parts[0], names[:_COMPARED]):
        return f"{hint} (in {str(parent)!r})"
    return f"; {str(parent)!r} contains: {', '.join(names[:8])}" if names else ""


def visible(folder: Path) -> list[str]:
    """Return the sorted names in a folder, without hidden entries such as download caches and system files."""
    with filesystem_errors(folder):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def listing(folder: Path) -> str:
    """Describe the contents of a folder, shortened, for a message."""
    names = visible(folder)
    shown = [name + ("/" if os.path.isdir(folder / name) else "") for name in names[:_LISTED]]
    return f"it contains {shortened([*shown, *names[_LISTED:]], _LISTED)}" if names else "it is empty"


def read_network_config(folder: Path) -> dict[str, object]:
    """Read ``config.json`` of a folder; ``{}`` if there is none. Raises ``CheckpointError`` if it is damaged, or a link
    to a file that does not exist."""
    path = folder / "config.json"
    if target := broken_link(path):
        raise CheckpointError(
            f"{path} is a broken link to {target}; copy the target as well, or download it again"
        )
    return read_object(path, "is damaged") if os.path.isfile(path) else {}


def first_network_config(folders: Iterable[Path]) -> dict[str, object]:
    """Read the ``config.json`` of the first folder that has one; ``{}`` if none has. Raises ``CheckpointError`` if it
    is damaged."""
    for folder in folders:
        if config := read_network_config(folder):
            return config
    return {}


def short(text: str) -> str:
    """Return a path as written by the user, quoted, cut after 300 characters."""
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
