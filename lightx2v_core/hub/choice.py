"""Which files of the listed repositories are fetched, and where in the model's folder they go. No network here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen

from lightx2v_core.errors import RequestError, suggestion
from lightx2v_core.hub.catalog import ALL, ORIGINAL, Ask, Entry
from lightx2v_core.hub.remote import Listing, RemoteFile
from lightx2v_core.spec.components import RepositoryFiles
from lightx2v_core.spec.specs import ModelSpec

List = Callable[[str], Listing]


@frozen(kw_only=True)
class Wanted:
    """A file to fetch."""

    remote: RemoteFile
    #: its path inside the model's folder
    target: str
    component: str = ""
    precision: str = ""


@frozen(kw_only=True)
class Choice:
    """What is fetched, what of the asked repository is not, and what the user should know of it."""

    wanted: tuple[Wanted, ...]
    left: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()


def chosen(ask: Ask, found: Sequence[Entry], list_repo: List) -> Choice:
    """The files of an entry (the first of ``found``), what it lacks from the others.

    ``RequestError`` when a component or precision that is asked for is not known, or the repositories lack a file.
    """
    components = _components(ask, found)
    wanted: dict[str, Wanted] = {}
    notes = []
    for component in components:
        for precision in _precisions(ask, found, component):
            files, note = _files(ask, found, component, precision, list_repo)
            if note:
                notes.append(note)
            for item in files:
                other = wanted.setdefault(item.target, item)
                if other.remote.etag != item.remote.etag:
                    raise RequestError(
                        f"{other.remote.repo}/{other.remote.path} and {item.remote.repo}/{item.remote.path} would both "
                        f"be {item.target}; leave one out with --exclude"
                    )
    _check_case(wanted.values())
    taken = {(item.remote.repo, item.remote.path) for item in wanted.values()}
    own = list_repo(found[0].repository.repo)
    left = tuple(file for file in own.files if (file.repo, file.path) not in taken)
    return Choice(wanted=tuple(wanted.values()), left=left, notes=tuple(notes))


def matching(listing: Listing, include: Sequence[str]) -> Choice:
    """The files of one repository that any pattern means, each where the repository has it. A folder's name means all
    that is in it. ``RequestError`` for a pattern that means nothing."""
    taken: dict[str, RemoteFile] = {}
    for pattern in include:
        found = [file for file in listing.files if _means(pattern, file.path)]
        if not found:
            paths = [file.path for file in listing.files]
            near = suggestion(pattern, paths)
            raise RequestError(
                f"{listing.repo} has no file like {pattern!r}{near}{'' if near else _holds(listing)}"
            )
        taken.update((file.path, file) for file in found)
    return _plain(listing, taken)


def recognized(listing: Listing, models: Iterable[ModelSpec[Any]]) -> Choice:
    """The files of an unknown repository whose names are those that the components of the models have.

    ``RequestError`` when there are none, with what there is.
    """
    patterns: dict[str, list[str]] = {}
    for model in models:
        for component in model.components:
            found = patterns.setdefault(component.name, [])
            found += [*component.files, *(path for paths in component.assets.values() for path in paths)]
    if not patterns:
        raise RequestError(
            f"no loaded plugin knows a model, so what {listing.repo} holds is unknown; give --include"
        )
    taken: dict[str, RemoteFile] = {}
    for file in listing.files:
        if any(_named(pattern, file.path) for found in patterns.values() for pattern in found):
            taken[file.path] = file
    single = [file for file in listing.files if "/" not in file.path and file.path.endswith(".safetensors")]
    if not taken and len(single) == 1:
        taken[single[0].path] = single[0]
    if not taken:
        raise RequestError(
            f"{listing.repo} holds no file named like a component of the known models; say what to take with "
            f"--include{_holds(listing)}"
        )
    folders = {path.rpartition("/")[0] for path in taken}
    for file in listing.files:
        folder, _, name = file.path.rpartition("/")
        if folder in folders and (name == "config.json" or name.endswith(".safetensors.index.json")):
            taken[file.path] = file
    return _plain(listing, taken)


def without(choice: Choice, exclude: Sequence[str]) -> Choice:
    """A choice less the files that any pattern means. ``RequestError`` for a pattern that means none of them, or when
    nothing is left."""
    for pattern in exclude:
        if not any(_means(pattern, item.remote.path) for item in choice.wanted):
            paths = [item.remote.path for item in choice.wanted]
            raise RequestError(
                f"--exclude {pattern!r} means none of the files chosen{suggestion(pattern, paths)}"
            )
    kept = [
        item for item in choice.wanted if not any(_means(pattern, item.remote.path) for pattern in exclude)
    ]
    if not kept:
        raise RequestError("--exclude leaves nothing to fetch")
    dropped = tuple(item.remote for item in choice.wanted if item not in kept)
    return Choice(wanted=tuple(kept), left=(*dropped, *choice.left), notes=choice.notes)


def _components(ask: Ask, found: Sequence[Entry]) -> tuple[str, ...]:
    """What is needed: all that the entries have and is not optional, and what else is asked for."""
    every = [files for entry in found for files in entry.repository.files]
    known = dict.fromkeys(files.component for files in every)
    optional = dict.fromkeys(files.component for files in every if files.optional)
    for name in ask.extra:
        if name not in optional:
            there = ", ".join(optional) or "nothing"
            raise RequestError(f"--with {name!r} is nothing optional of {found[0].name}; there is: {there}"
                               f"{suggestion(name, optional)}")  # fmt: skip
    groups = _groups(found[0])
    for name in ask.precisions:
        if name and name not in known and name not in groups:
            raise RequestError(f"--precision {name}=...: {found[0].name} has no component {name!r}; it has: "
                               f"{', '.join(known)}{suggestion(name, known)}")  # fmt: skip
    needed = dict.fromkeys(files.component for files in every if not files.optional)
    if not needed and not ask.extra:
        raise RequestError(
            f"{found[0].name} holds optional parts only; take some with --with: {', '.join(optional)}"
        )
    return tuple(dict.fromkeys([*needed, *ask.extra]))


def _groups(entry: Entry) -> dict[str, tuple[str, ...]]:
    """Names that stand for several components, such as ``dit`` for two experts."""
    groups: dict[str, tuple[str, ...]] = {}
    for component in entry.model.components:
        if component.group is not None:
            groups[component.group] = (*groups.get(component.group, ()), component.name)
    return groups


def _precisions(ask: Ask, found: Sequence[Entry], component: str) -> tuple[str, ...]:
    """The precisions of one component that are wanted."""
    asked = _asked(ask, found[0], component) or ask.precisions.get("") or (_default(found),)
    if ALL not in asked:
        return asked
    there = dict.fromkeys(
        files.precision
        for entry in found
        for files in entry.repository.files
        if files.component == component and files.precision is not None
    )
    return tuple(there) or (ORIGINAL,)


def _asked(ask: Ask, entry: Entry, component: str) -> tuple[str, ...]:
    """What is asked for this component by its own name or that of its group."""
    names = [component, *(group for group, members in _groups(entry).items() if component in members)]
    return next((ask.precisions[name] for name in names if name in ask.precisions), ())


def _default(found: Sequence[Entry]) -> str:
    """What is taken when nothing is asked: the original, or the only one there is."""
    there = found[0].precisions
    return ORIGINAL if ORIGINAL in there or len(there) != 1 else there[0]


def _files(
    ask: Ask, found: Sequence[Entry], component: str, precision: str, list_repo: List
) -> tuple[list[Wanted], str]:
    """The files of a component at a precision, from the first source that has it; and a note when it has another."""
    there = dict.fromkeys(
        files.precision for entry in found for files in entry.repository.files if files.component == component
    )
    note = ""
    if precision not in there and None not in there:
        names = ", ".join(str(name) for name in there)
        if _asked(ask, found[0], component):
            raise RequestError(f"the {component} of {found[0].name} comes in {names}, not in {precision}"
                               f"{suggestion(precision, [str(name) for name in there])}")  # fmt: skip
        if ORIGINAL not in there:
            raise RequestError(
                f"the {component} of {found[0].name} comes in {names}, not in {precision} or original"
            )
        note, precision = f"{component}: there is no {precision}, so the original", ORIGINAL
    tried = []
    for wish in (precision, None):
        for entry in found:
            for files in entry.repository.files:
                if (files.component, files.precision) != (component, wish):
                    continue
                matches = _matches(files, list_repo(entry.repository.repo))
                if matches:
                    return [_wanted(file, files, precision if wish else "") for file in matches], note
                tried.append(f"{entry.repository.repo}: {', '.join(files.files)}")
    raise RequestError(
        f"the repositories of {found[0].name} hold no {component}{f' in {precision}' if precision in there else ''}; "
        "they may have changed. Looked for, and --include takes other names:\n  " + "\n  ".join(tried)
    )


def _matches(files: RepositoryFiles, listing: Listing) -> list[RemoteFile]:
    found: list[RemoteFile] = []
    for pattern in files.files:
        matches = [file for file in listing.files if _glob(pattern, file.path)]
        if files.single and len(matches) > 1:
            names = "\n".join(f"  {file.path}" for file in matches)
            raise RequestError(
                f"{listing.repo} holds more than one {files.component} like {pattern!r}; say which with --include:\n"
                f"{names}"
            )
        found += [file for file in matches if file not in found]
        if files.single and found:
            break
    return found


def _wanted(file: RemoteFile, files: RepositoryFiles, precision: str) -> Wanted:
    name = file.path.rpartition("/")[2]
    target = file.path if files.folder is None else f"{files.folder}/{name}" if files.folder else name
    return Wanted(remote=file, target=target, component=files.component, precision=precision)


def _plain(listing: Listing, taken: Mapping[str, RemoteFile]) -> Choice:
    wanted = tuple(Wanted(remote=file, target=path) for path, file in taken.items())
    _check_case(wanted)
    return Choice(wanted=wanted, left=tuple(file for file in listing.files if file.path not in taken))


def _check_case(wanted: Iterable[Wanted]) -> None:
    """Names that differ in case only are one file on some systems."""
    seen: dict[str, str] = {}
    for item in wanted:
        other = seen.setdefault(item.target.casefold(), item.target)
        if other != item.target:
            raise RequestError(
                f"{other!r} and {item.target!r} are one file on some systems; leave one out: --exclude"
            )


def _glob(pattern: str, path: str) -> bool:
    """Whether a glob means a path; a star stays inside a folder's name."""
    parts, globs = path.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(
        fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True)
    )


def _named(pattern: str, path: str) -> bool:
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


def _holds(listing: Listing) -> str:
    names = [file.path for file in listing.files if file.path != ".gitattributes"]
    shown = "\n".join(f"  {name}" for name in names[:20])
    return f"; it holds:\n{shown}" + (f"\n  and {len(names) - 20} more" if len(names) > 20 else "")
