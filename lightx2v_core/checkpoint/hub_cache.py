"""The cache of huggingface_hub, read as files: ``HUB/models--OWNER--NAME`` with ``refs/BRANCH``, which holds the name
of a snapshot, ``snapshots/COMMIT``, the files as links, and ``blobs``, what these lead to.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Neither that library nor a network is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lightx2v_core.checkpoint.listing import list_folder
from lightx2v_core.errors import CheckpointError, shortened

#: a repository, and the way to a file or folder in it
_REPOSITORY = re.compile(
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<inside>.+))?/?"
)
_FOLDER = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
MAIN = "main"
#: bytes of a ref
_MOST = 200


def hub_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Find where the library keeps what it fetched, by its own rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return Path(os.path.expandvars(environ[variable])).expanduser()
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def snapshot_of(folder: Path) -> Path:
    """Return the files of a repository in the cache, for its folder, or that of its snapshots or blobs; any other
    folder as it is. ``CheckpointError`` when it has several snapshots and none is that of ``main``, or when it has
    none."""
    repository = folder.parent if folder.name in ("snapshots", "blobs", "refs") else folder
    if not _FOLDER.fullmatch(repository.name) or not os.path.isdir(repository / "snapshots"):
        return _of_a_store(folder)
    return _snapshot(repository, MAIN)


def cached(text: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Find where the cache has what ``OWNER/NAME`` means, or ``OWNER/NAME@REVISION``, or a file or folder in it;
    ``None`` when the text names no repository, or the cache has none of this name. ``CheckpointError`` as for
    ``snapshot_of``, and for a path that leaves the repository."""
    match = _REPOSITORY.fullmatch(text)
    if match is None or match["owner"].strip(".") == "" or match["name"].strip(".") == "":
        return None
    repository = hub_folder(environ) / f"models--{match['owner']}--{match['name']}"
    if not os.path.isdir(repository / "snapshots"):
        return None
    inside = match["inside"] or ""
    if ".." in Path(inside).parts or Path(inside).is_absolute():
        raise CheckpointError(f"{text!r} leaves the repository {match['owner']}/{match['name']}")
    return _snapshot(repository, match["revision"] or MAIN) / inside


def is_repository(text: str) -> bool:
    """Tell whether a text could name a repository of the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def _snapshot(repository: Path, revision: str) -> Path:
    """Return the snapshot of a branch or commit; the only one there is, when ``main`` says nothing of it."""
    there = list_folder(repository / "snapshots").folders
    try:
        with (repository / "refs" / revision).open("rb") as file:
            said = file.read(_MOST).decode("ascii", "replace").strip()
    except OSError:
        said = revision
    if said in there:
        return repository / "snapshots" / said
    if revision == MAIN and len(there) == 1:
        return repository / "snapshots" / there[0]
    if not there:
        raise CheckpointError(f"{repository} has no snapshot: nothing of it was fetched; download the model")
    ways = shortened([str(repository / "snapshots" / name) for name in there])
    what = "main" if revision == MAIN else f"revision {revision!r}"
    raise CheckpointError(
        f"{repository} has {len(there)} snapshots and none of {what}; give one of them: {ways}"
    )


def _of_a_store(folder: Path) -> Path:
    """Return the folder; ``CheckpointError`` when it is the whole cache, which holds many models."""
    try:
        names = [name for name in list_folder(folder).folders if _FOLDER.fullmatch(name)]
        beside = [
            name for name in list_folder(folder).files if name.endswith((".safetensors", ".pth", ".gguf"))
        ]
    except CheckpointError:
        return folder  # which whoever looks into it says
    if not names or beside:
        return folder
    known = [name.removeprefix("models--").replace("--", "/", 1) for name in names]
    raise CheckpointError(
        f"{folder} is the hub's cache, which holds many models; give one of them: {shortened(known)}, or its folder, "
        f"such as {folder / names[0]}"
    )
