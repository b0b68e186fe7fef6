"""Selection of files from repository listings, and their paths in the model's folder. No network access."""

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
    #: path inside the model's folder
    target: str
    component: str = ""
    precision: str = ""


@frozen(kw_only=True)
class FileSelection:
    """The files to fetch, the other files of the requested repository, and notes for the user."""

    files: tuple[DownloadFile, ...]
    left_out: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()


def select_files(
    request: DownloadRequest, entries: Sequence[CatalogEntry], list_repository: ListRepository
) -> FileSelection:
    """Select the files of the first entry, and those that it lacks from the other entries.

    Raises ``RequestError`` for an unknown component or precision, and when the repositories lack a file.
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
                        f"be saved as {file.target}; exclude one with --exclude"
                    )
    _check_case(selected.values())
    taken = {(file.remote.repo, file.remote.path) for file in selected.values()}
    own = list_repository(entries[0].repository.repo)
    left_out = tuple(remote for remote in own.files if (remote.repo, remote.path) not in taken)
    return FileSelection(files=tuple(selected.values()), left_out=left_out, notes=tuple(notes))


def select_matching(listing: Listing, include: Sequence[str]) -> FileSelection:
    """Select the files of one repository that match any pattern, with their paths in the repository.

    A pattern that ends in a slash matches all files below a folder. Raises ``RequestError`` for a pattern that
    matches nothing.
    """
    taken: dict[str, RemoteFile] = {}
    for pattern in include:
        matches = [remote for remote in listing.files if _means(pattern, remote.path)]
        if not matches:
            near = suggestion(pattern, [remote.path for remote in listing.files])
            raise RequestError(
                f"no file of {listing.repo} matches {pattern!r}{near}{'' if near else _contents(listing)}"
            )
        taken.update((remote.path, remote) for remote in matches)
    return _as_listed(listing, taken)


def select_by_names(listing: Listing, models: Iterable[ModelSpec[Any]]) -> FileSelection:
    """Select the files of an unknown repository that are named like a component of one of ``models``.

    Raises ``RequestError`` with the files of the repository when none matches.
    """
    components = [component for model in models for component in model.components]
    if not components:
        raise RequestError(
            f"cannot select files of {listing.repo}: no loaded plugin has a model; name files with --include"
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
            f"{listing.repo} has no file named like a component of a known model; name files with "
            f"--include{_contents(listing)}"
        )
    folders = {path.rpartition("/")[0] for path in taken}
    for remote in listing.files:
        folder, _, name = remote.path.rpartition("/")
        if folder in folders and (name == "config.json" or name.endswith(".safetensors.index.json")):
            taken[remote.path] = remote
    return _as_listed(listing, taken)


def without(selection: FileSelection, exclude: Sequence[str]) -> FileSelection:
    """Drop the files that match any pattern.

    Raises ``RequestError`` for a pattern without a match, and when no file is left.
    """
    for pattern in exclude:
        if not any(_means(pattern, file.remote.path) for file in selection.files):
            near = suggestion(pattern, [file.remote.path for file in selection.files])
            raise RequestError(f"--exclude {pattern!r} matches none of the selected files{near}")
    kept = [
        file for file in selection.files if not any(_means(pattern, file.remote.path) for pattern in exclude)
    ]
    if not kept:
        raise RequestError("--exclude matches all selected files")
    excluded = tuple(file.remote for file in selection.files if file not in kept)
    return FileSelection(files=tuple(kept), left_out=(*excluded, *selection.left_out), notes=selection.notes)


def _components(request: DownloadRequest, entries: Sequence[CatalogEntry]) -> tuple[str, ...]:
    """List the components to fetch: all that are not optional, and the requested optional ones."""
    every = [files for entry in entries for files in entry.repository.files]
    known = dict.fromkeys(files.component for files in every)
    optional = dict.fromkeys(files.component for files in every if files.optional)
    for name in request.extra:
        if name not in optional:
            there = ", ".join(optional) or "none"
            raise RequestError(f"--with {name!r}: {entries[0].name} has no such optional component; available: {there}"
                               f"{suggestion(name, optional)}")  # fmt: skip
    groups = _groups(entries[0])
    for name in request.precisions:
        if name and name not in known and name not in groups:
            raise RequestError(f"--precision {name}=...: {entries[0].name} has no component {name!r}; it has: "
                               f"{', '.join(known)}{suggestion(name, known)}")  # fmt: skip
    needed = dict.fromkeys(files.component for files in every if not files.optional)
    if not needed and not request.extra:
        raise RequestError(
            f"{entries[0].name} has only optional components; select them with --with: {', '.join(optional)}"
        )
    return tuple(dict.fromkeys([*needed, *request.extra]))


def _groups(entry: CatalogEntry) -> dict[str, tuple[str, ...]]:
    """Return the names for groups of components, such as ``dit`` for two experts."""
    groups: dict[str, tuple[str, ...]] = {}
    for component in entry.model.components:
        if component.group is not None:
            groups[component.group] = (*groups.get(component.group, ()), component.name)
    return groups


def _precisions(request: DownloadRequest, entries: Sequence[CatalogEntry], component: str) -> tuple[str, ...]:
    """List the precisions to fetch of one component."""
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
    """Return the precisions requested for this component, by its own name or its group's."""
    names = [component, *(group for group, members in _groups(entry).items() if component in members)]
    return next((request.precisions[name] for name in names if name in request.precisions), ())


def _default_precision(entries: Sequence[CatalogEntry]) -> str:
    """Return the precision to fetch by default: the original, or the only one available."""
    there = entries[0].precisions
    return ORIGINAL if ORIGINAL in there or len(there) != 1 else there[0]


def _files(
    request: DownloadRequest,
    entries: Sequence[CatalogEntry],
    component: str,
    precision: str,
    list_repository: ListRepository,
) -> tuple[list[DownloadFile], str]:
    """List the files of a component at a precision, from the first entry that has them; with a note on a fallback."""
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
            raise RequestError(f"{component} of {entries[0].name} is available in {names}, not in {precision}"
                               f"{suggestion(precision, [str(name) for name in there])}")  # fmt: skip
        if ORIGINAL not in there:
            raise RequestError(
                f"{component} of {entries[0].name} is available in {names}, not in {precision} or original"
            )
        note, precision = f"{component}: not available in {precision}; using the original", ORIGINAL
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
        f"the repositories of {entries[0].name} have no {component}"
        f"{f' in {precision}' if precision in there else ''}; they may have changed. Name files with --include; "
        "searched for:\n  " + "\n  ".join(tried)
    )


def _matches(files: RepositoryFiles, listing: Listing) -> list[RemoteFile]:
    remotes: list[RemoteFile] = []
    for pattern in files.files:
        matches = [remote for remote in listing.files if _glob(pattern, remote.path)]
        if files.single and len(matches) > 1:
            names = "\n".join(f"  {remote.path}" for remote in matches)
            raise RequestError(
                f"{listing.repo} has more than one {files.component} like {pattern!r}; choose with --include:\n"
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
    """Reject names that differ in case only: they are the same file on some operating systems."""
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.target.casefold(), file.target)
        if other != file.target:
            raise RequestError(
                f"{other!r} and {file.target!r} are the same file on some operating systems; --exclude one of them"
            )


def _glob(pattern: str, path: str) -> bool:
    """Return whether a glob matches a path; a star does not match slashes."""
    parts, globs = path.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(
        fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True)
    )


def _is_named(pattern: str, path: str) -> bool:
    """Return whether the name of a file matches a pattern, in any folder.

    A pattern that starts with a star, such as ``*.safetensors``, must match together with its folder.
    """
    tail = pattern.rpartition("/")[2]
    if tail.startswith("*"):
        return "/" in pattern and _glob(pattern, path)
    return (
        fnmatchcase(path, pattern)
        or fnmatchcase(path, f"*/{pattern}")
        or fnmatchcase(path.rpartition("/")[2], tail)
    )


def _means(pattern: str, path: str) -> bool:
    """Match a pattern as in huggingface_hub: a star crosses folders, and a final slash matches everything below."""
    return fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)


def _contents(listing: Listing) -> str:
    names = [remote.path for remote in listing.files if remote.path != ".gitattributes"]
    shown = "\n".join(f"  {name}" for name in names[:20])
    return f"; it has:\n{shown}" + (f"\n  and {len(names) - 20} more" if len(names) > 20 else "")
