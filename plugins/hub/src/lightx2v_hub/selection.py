"""Which files of the listed repositories are fetched, and where in the model's folder they go. No network here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen

from lightx2v_core.api import ModelSpec, RepositoryFiles, RequestError, suggestion
from lightx2v_hub.remote import Listing, RemoteFile
from lightx2v_hub.repositories import ALL, ORIGINAL, CatalogEntry, DownloadRequest

ListRepository = Callable[[str], Listing]


@frozen(kw_only=True)
class DownloadFile:
    """A file to fetch."""

    remote: RemoteFile
    #: its path inside the model's folder
    target: str
    component: str = ""
    precision: str = ""


@frozen(kw_only=True)
class FileSelection:
    """What is fetched, what of the asked repository is not, and what the user should know of it."""

    files: tuple[DownloadFile, ...]
    left_out: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()


def select_files(
    request: DownloadRequest, entries: Sequence[CatalogEntry], list_repository: ListRepository
) -> FileSelection:
    """Select the files of an entry (the first of ``entries``), and what it lacks from the others.

    ``RequestError`` when a component or precision that is asked for is not known, or the repositories lack a file.
    """
    selected: dict[str, DownloadFile] = {}
    notes = []
    for component in _components(request, entries):
        for precision in _precisions(request, entries, component):
            files, note = _files(request, entries, component, precision, list_repository)
            if note:
                notes.append(note)
            for file in files:
                other = selected.setdefault(file.target, file)
                if other.remote.etag != file.remote.etag:
                    raise RequestError(
                        f"{other.remote.repo}/{other.remote.path} and {file.remote.repo}/{file.remote.path} would both "
                        f"be {file.target}; leave one out with --exclude"
                    )
    _check_case(selected.values())
    taken = {(file.remote.repo, file.remote.path) for file in selected.values()}
    own = list_repository(entries[0].repository.repo)
    left_out = tuple(remote for remote in own.files if (remote.repo, remote.path) not in taken)
    return FileSelection(files=tuple(selected.values()), left_out=left_out, notes=tuple(notes))


def select_matching(listing: Listing, include: Sequence[str]) -> FileSelection:
    """Select the files of one repository that any pattern means, each where the repository has it. A folder's name
    means all that is in it. ``RequestError`` for a pattern that means nothing."""
    taken: dict[str, RemoteFile] = {}
    for pattern in include:
        matches = [remote for remote in listing.files if _means(pattern, remote.path)]
        if not matches:
            near = suggestion(pattern, [remote.path for remote in listing.files])
            raise RequestError(
                f"{listing.repo} has no file like {pattern!r}{near}{'' if near else _contents(listing)}"
            )
        taken.update((remote.path, remote) for remote in matches)
    return _as_listed(listing, taken)


def select_by_names(listing: Listing, models: Iterable[ModelSpec[Any]]) -> FileSelection:
    """Select the files of an unknown repository whose names are those that the components of the models have.

    ``RequestError`` when there are none, with what there is.
    """
    components = [component for model in models for component in model.components]
    if not components:
        raise RequestError(
            f"no loaded plugin knows a model, so what {listing.repo} holds is unknown; give --include"
        )
    patterns = [
        pattern
        for component in components
        for pattern in (*component.files, *(path for paths in component.assets.values() for path in paths))
    ]
    taken = {
        remote.path: remote
        for remote in listing.files
        if any(_is_named(pattern, remote.path) for pattern in patterns)
    }
    single = [
        remote for remote in listing.files if "/" not in remote.path and remote.path.endswith(".safetensors")
    ]
    if not taken and len(single) == 1:
        taken[single[0].path] = single[0]
    if not taken:
        raise RequestError(
            f"{listing.repo} holds no file named like a component of the known models; say what to take with "
            f"--include{_contents(listing)}"
        )
    folders = {path.rpartition("/")[0] for path in taken}
    for remote in listing.files:
        folder, _, name = remote.path.rpartition("/")
        if folder in folders and (name == "config.json" or name.endswith(".safetensors.index.json")):
            taken[remote.path] = remote
    return _as_listed(listing, taken)


def without(selection: FileSelection, exclude: Sequence[str]) -> FileSelection:
    """Leave out the files that any pattern means. ``RequestError`` for a pattern that means none of them, or when
    nothing is left."""
    for pattern in exclude:
        if not any(_means(pattern, file.remote.path) for file in selection.files):
            near = suggestion(pattern, [file.remote.path for file in selection.files])
            raise RequestError(f"--exclude {pattern!r} means none of the files chosen{near}")
    kept = [
        file for file in selection.files if not any(_means(pattern, file.remote.path) for pattern in exclude)
    ]
    if not kept:
        raise RequestError("--exclude leaves nothing to fetch")
    excluded = tuple(file.remote for file in selection.files if file not in kept)
    return FileSelection(files=tuple(kept), left_out=(*excluded, *selection.left_out), notes=selection.notes)


def _components(request: DownloadRequest, entries: Sequence[CatalogEntry]) -> tuple[str, ...]:
    """What is needed: all that the entries have and is not optional, and what else is asked for."""
    every = [files for entry in entries for files in entry.repository.files]
    known = dict.fromkeys(files.component for files in every)
    optional = dict.fromkeys(files.component for files in every if files.optional)
    for name in request.extra:
        if name not in optional:
            there = ", ".join(optional) or "nothing"
            raise RequestError(f"--with {name!r} is nothing optional of {entries[0].name}; there is: {there}"
                               f"{suggestion(name, optional)}")  # fmt: skip
    groups = _groups(entries[0])
    for name in request.precisions:
        if name and name not in known and name not in groups:
            raise RequestError(f"--precision {name}=...: {entries[0].name} has no component {name!r}; it has: "
                               f"{', '.join(known)}{suggestion(name, known)}")  # fmt: skip
    needed = dict.fromkeys(files.component for files in every if not files.optional)
    if not needed and not request.extra:
        raise RequestError(
            f"{entries[0].name} holds optional parts only; take some with --with: {', '.join(optional)}"
        )
    return tuple(dict.fromkeys([*needed, *request.extra]))


def _groups(entry: CatalogEntry) -> dict[str, tuple[str, ...]]:
    """Names that stand for several components, such as ``dit`` for two experts."""
    groups: dict[str, tuple[str, ...]] = {}
    for component in entry.model.components:
        if component.group is not None:
            groups[component.group] = (*groups.get(component.group, ()), component.name)
    return groups


def _precisions(request: DownloadRequest, entries: Sequence[CatalogEntry], component: str) -> tuple[str, ...]:
    """The precisions of one component to take."""
    requested = (
        _of_component(request, entries[0], component)
        or request.precisions.get("")
        or (_default_precision(entries),)
    )
    if ALL not in requested:
        return requested
    there = dict.fromkeys(
        files.precision
        for entry in entries
        for files in entry.repository.files
        if files.component == component and files.precision is not None
    )
    return tuple(there) or (ORIGINAL,)


def _of_component(request: DownloadRequest, entry: CatalogEntry, component: str) -> tuple[str, ...]:
    """The precisions that are asked for of this component, by its own name or that of its group."""
    names = [component, *(group for group, members in _groups(entry).items() if component in members)]
    return next((request.precisions[name] for name in names if name in request.precisions), ())


def _default_precision(entries: Sequence[CatalogEntry]) -> str:
    """What is taken when nothing is asked: the original, or the only one there is."""
    there = entries[0].precisions
    return ORIGINAL if ORIGINAL in there or len(there) != 1 else there[0]


def _files(
    request: DownloadRequest,
    entries: Sequence[CatalogEntry],
    component: str,
    precision: str,
    list_repository: ListRepository,
) -> tuple[list[DownloadFile], str]:
    """The files of a component at a precision, from the first source that has it; and a note when it has another."""
    there = dict.fromkeys(
        files.precision
        for entry in entries
        for files in entry.repository.files
        if files.component == component
    )
    note = ""
    if precision not in there and None not in there:
        names = ", ".join(str(name) for name in there)
        if _of_component(request, entries[0], component):
            raise RequestError(f"the {component} of {entries[0].name} comes in {names}, not in {precision}"
                               f"{suggestion(precision, [str(name) for name in there])}")  # fmt: skip
        if ORIGINAL not in there:
            raise RequestError(
                f"the {component} of {entries[0].name} comes in {names}, not in {precision} or original"
            )
        note, precision = f"{component}: there is no {precision}, so the original", ORIGINAL
    tried = []
    for stored in (precision, None):
        for entry in entries:
            for files in entry.repository.files:
                if (files.component, files.precision) != (component, stored):
                    continue
                matches = _matches(files, list_repository(entry.repository.repo))
                if matches:
                    return [_placed(remote, files, precision if stored else "") for remote in matches], note
                tried.append(f"{entry.repository.repo}: {', '.join(files.files)}")
    raise RequestError(
        f"the repositories of {entries[0].name} hold no {component}"
        f"{f' in {precision}' if precision in there else ''}; they may have changed. Looked for, and --include takes "
        "other names:\n  " + "\n  ".join(tried)
    )


def _matches(files: RepositoryFiles, listing: Listing) -> list[RemoteFile]:
    remotes: list[RemoteFile] = []
    for pattern in files.files:
        matches = [remote for remote in listing.files if _glob(pattern, remote.path)]
        if files.single and len(matches) > 1:
            names = "\n".join(f"  {remote.path}" for remote in matches)
            raise RequestError(
                f"{listing.repo} holds more than one {files.component} like {pattern!r}; say which with --include:\n"
                f"{names}"
            )
        remotes += [remote for remote in matches if remote not in remotes]
        if files.single and remotes:
            break
    return remotes


def _placed(remote: RemoteFile, files: RepositoryFiles, precision: str) -> DownloadFile:
    name = remote.path.rpartition("/")[2]
    target = remote.path if files.folder is None else f"{files.folder}/{name}" if files.folder else name
    return DownloadFile(remote=remote, target=target, component=files.component, precision=precision)


def _as_listed(listing: Listing, taken: Mapping[str, RemoteFile]) -> FileSelection:
    files = tuple(DownloadFile(remote=remote, target=path) for path, remote in taken.items())
    _check_case(files)
    return FileSelection(
        files=files, left_out=tuple(remote for remote in listing.files if remote.path not in taken)
    )


def _check_case(files: Iterable[DownloadFile]) -> None:
    """Names that differ in case only are one file on some systems."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.target.casefold(), file.target)
        if other != file.target:
            raise RequestError(
                f"{other!r} and {file.target!r} are one file on some systems; leave one out: --exclude"
            )


def _glob(pattern: str, path: str) -> bool:
    """Whether a glob means a path; a star stays inside a folder's name."""
    parts, globs = path.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(
        fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True)
    )


def _is_named(pattern: str, path: str) -> bool:
    """Whether a file is named as a pattern says, in whatever folder. A pattern without a name of its own, such as
    ``*.safetensors``, only counts with its folder."""
    tail = pattern.rpartition("/")[2]
    if tail.startswith("*"):
        return "/" in pattern and _glob(pattern, path)
    return (
        fnmatchcase(path, pattern)
        or fnmatchcase(path, f"*/{pattern}")
        or fnmatchcase(path.rpartition("/")[2], tail)
    )


def _means(pattern: str, path: str) -> bool:
    """Patterns of users are huggingface_hub's: a star crosses folders, and a name ending in a slash is all below it."""
    return fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)


def _contents(listing: Listing) -> str:
    names = [remote.path for remote in listing.files if remote.path != ".gitattributes"]
    shown = "\n".join(f"  {name}" for name in names[:20])
    return f"; it holds:\n{shown}" + (f"\n  and {len(names) - 20} more" if len(names) > 20 else "")
