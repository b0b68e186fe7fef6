"""The cache of huggingface_hub, read as files: ``HUB/models--OWNER--NAME`` with ``refs/BRANCH``, which contains the
name of a snapshot, ``snapshots/COMMIT`` with links to the files, and ``blobs`` with the files.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Requires neither that library nor a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lightx2v_core.checkpoint.listing import list_folder
from lightx2v_core.errors import CheckpointError, shortened

#: a repository, and the path of a file or folder in it
_REPOSITORY = re.compile(
    r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<inside>.+))?/?"
)
_FOLDER = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
MAIN = "main"
#: bytes read of a ref
_MOST = 200


def hub_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder of huggingface_hub, by the environment variables that the library uses."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return Path(os.path.expandvars(environ[variable])).expanduser()
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def snapshot_of(folder: Path) -> Path:
    """Return the snapshot of a cached repository, given the repository's folder or its ``snapshots``, ``blobs`` or
    ``refs``. Any other folder is returned unchanged. Raises ``CheckpointError`` if the repository has no snapshot, if
    it has several but none for ``main``, and if the folder is the whole cache."""
    repository = folder.parent if folder.name in ("snapshots", "blobs", "refs") else folder
    if not _FOLDER.fullmatch(repository.name) or not os.path.isdir(repository / "snapshots"):
        return _of_a_store(folder)
    return _snapshot(repository, MAIN)


def cached(text: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Resolve ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, with an optional path inside, to a path in the cache. Returns
    ``None`` if the text does not name a repository, or the cache has none of this name. Raises ``CheckpointError`` as
    ``snapshot_of`` does, and for a path that leaves the repository."""
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
    """Return whether a text could name a repository of the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def _snapshot(repository: Path, revision: str) -> Path:
    """Return the snapshot of a branch or commit; the only snapshot, if ``main`` refers to none."""
    there = list_folder(repository / "snapshots").folders
    try:
        with (repository / "refs" / revision).open("rb") as file:
            commit = file.read(_MOST).decode("ascii", "replace").strip()
    except OSError:
        commit = revision
    if commit in there:
        return repository / "snapshots" / commit
    if revision == MAIN and len(there) == 1:
        return repository / "snapshots" / there[0]
    if not there:
        raise CheckpointError(f"{repository} has no snapshot; download the model")
    ways = shortened([str(repository / "snapshots" / name) for name in there])
    what = "main" if revision == MAIN else f"revision {revision!r}"
    raise CheckpointError(
        f"{repository} has {len(there)} snapshots and none of {what}; use one of them: {ways}"
    )


def _of_a_store(folder: Path) -> Path:
    """Return the folder. Raises ``CheckpointError`` if it is the whole cache, which contains many models."""
    try:
        names = [name for name in list_folder(folder).folders if _FOLDER.fullmatch(name)]
        beside = [
            name for name in list_folder(folder).files if name.endswith((".safetensors", ".pth", ".gguf"))
        ]
    except CheckpointError:
        return folder  # the caller reports the error when it reads the folder
    if not names or beside:
        return folder
    known = [name.removeprefix("models--").replace("--", "/", 1) for name in names]
    raise CheckpointError(
        f"{folder} is the hub cache, which contains many models; use one of them: {shortened(known)}, or its folder, "
        f"such as {folder / names[0]}"
    )
