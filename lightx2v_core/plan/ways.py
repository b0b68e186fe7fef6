"""Remedies for an incomplete model folder: download commands, or the folder that the user probably meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightx2v_core.checkpoint.places import CODED, CONFIG_FOLDERS, SEARCH_FOLDERS, SearchFolder
from lightx2v_core.errors import PluginFault
from lightx2v_core.spec.components import Repository, RepositoryFiles
from lightx2v_core.spec.recognition import Recognition, repository_of
from lightx2v_core.spec.specs import ModelSpec

_DOWNLOAD = "lightx2v-core download"


def that_bring(spec: ModelSpec, recognition: Recognition, lacking: Sequence[str], folder: Path) -> list[str]:
    """List the commands that download the components and other files (``tokenizer``) that a folder lacks, and no more.

    Files that no repository of the model has are left out.
    """
    wanted: dict[str, list[str]] = {}
    known = _nearest(spec, recognition, folder)
    for name in dict.fromkeys(lacking):
        for repository in known:
            if files := _files(repository, name):
                wanted.setdefault(repository.name, []).extend(files.files)
                break
    return [
        shlex.join([*_DOWNLOAD.split(), name, *files, "--to", str(folder)]) for name, files in wanted.items()
    ]


def by_name(specs: Iterable[ModelSpec], folder: Path) -> str:
    """Return the command that downloads the model that a folder is named after; empty for other names."""
    called = (repository_of(folder) or folder.name).lower()
    for spec in specs:
        for repository in _repositories(spec):
            if called in (repository.name, repository.repo.rpartition("/")[2].lower()):
                return shlex.join([*_DOWNLOAD.split(), repository.name, "--to", str(folder)])
    return ""


def above(folder: Path) -> str:
    """Suggest the parent of a folder named like a subfolder of a model, such as ``distill_int8``; empty for others."""
    known: Mapping[str, SearchFolder | None] = {
        **{Path(name).name: None for name in CONFIG_FOLDERS if name},
        **{place.folder: place for place in SEARCH_FOLDERS if place.folder},
    }
    path = folder.absolute()
    if path.name not in known:
        return ""
    place, keys = known[path.name], []
    if precision := next((word for word in CODED.values() if path.name.endswith(word)), ""):
        keys.append(f"--set components.dit.precision={precision}")
    if place is not None and place.distilled:
        keys.append("--set components.dit.distilled=true")
    chosen = f", with {' '.join(keys)}" if keys else ""
    return (
        f"{path.name} is the name of a folder inside a model folder: use the one above, --model-path {path.parent}"
        f"{chosen}"
    )


def _nearest(spec: ModelSpec, recognition: Recognition, folder: Path) -> list[Repository]:
    """Sort the repositories of a model: those of the variant first, then those for its tasks."""
    variant = recognition.variant.removesuffix("-distill")
    called = (repository_of(folder) or folder.name).lower()

    def rank(repository: Repository) -> tuple[bool, bool, bool, bool]:
        return (
            repository.name != variant and not repository.name.startswith(f"{variant}-"),
            not set(repository.tasks) & set(recognition.tasks),
            repository.kind != "official",
            repository.name.rpartition("-")[2] not in called,
        )

    return sorted((repository for repository in _repositories(spec) if repository.kind != "lora"), key=rank)


def _files(repository: Repository, name: str) -> RepositoryFiles | None:
    """Return the files of a component in its original precision."""
    matching = [files for files in repository.files if files.component == name and files.folder is None]
    return next((files for files in matching if files.precision in (None, "original")), None)


def _repositories(spec: ModelSpec) -> Sequence[Repository]:
    try:
        return spec.repositories()
    except PluginFault:
        return ()
