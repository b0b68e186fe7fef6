"""The folder of a model, and the small files in it that say what its network is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightx2v_core.errors import CheckpointError, suggestion


def model_folder(path: str | Path) -> Path:
    """The folder a user named; ``CheckpointError`` when it is none."""
    folder = expanded(path)
    if folder is None or not folder.exists():
        raise CheckpointError(f"model folder {short(str(path))} does not exist{near(folder)}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; give the folder that holds the model's files"
        )
    if not any(folder.iterdir()):
        raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path | None:
    """A path with ``~`` replaced, ``None`` when no file can be called so."""
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError):  # a name that is too long, an unknown ~user
        return None
    return found


def near(folder: Path | None) -> str:
    """What else is there, for a folder that is not."""
    parent = next((p for p in folder.parents if p.is_dir()), None) if folder is not None else None
    if folder is None or parent is None:
        return ""
    try:
        names = [name for name in visible(parent) if (parent / name).is_dir()]
    except OSError:
        return ""
    if found := suggestion(folder.relative_to(parent).parts[0], names):
        return f"{found} (in {str(parent)!r})"
    return f"; {str(parent)!r} holds: {', '.join(names[:8])}" if names else ""


def visible(folder: Path) -> list[str]:
    """The names of what is in a folder, in order, without hidden entries: download caches, files of the system."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, ``{}`` when there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is damaged: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__} where an object is expected")
    return value


def first_config(folders: Iterable[Path]) -> dict[str, Any]:
    """``config.json`` of the first of some folders that has one, ``{}`` when none has."""
    for folder in folders:
        if found := read_config(folder):
            return found
    return {}


def short(text: str) -> str:
    """A path as it was given, quoted, with its middle left out when it is endless."""
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
