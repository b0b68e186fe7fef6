"""Catalog of the repositories that loaded plugins list for their models, and look-up of a requested one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.api import LightX2VError, ModelSpec, Repository, RequestError, suggestion

ORIGINAL = "original"
#: selects every available precision
ALL = "all"


@frozen(kw_only=True)
class DownloadRequest:
    """A download as requested on the command line."""

    #: a name of the catalog, a repository, or a family of models
    what: str
    task: str | None = None
    #: component -> precisions; ``""`` for all other components
    precisions: Mapping[str, tuple[str, ...]] = {}
    #: None: not specified
    distilled: bool | None = None
    lora: bool = False
    #: optional components to add
    extra: tuple[str, ...] = ()

    @property
    def selecting(self) -> list[str]:
        """Return the given options that apply to known repositories only."""
        given = {
            "--task": self.task,
            "--precision": self.precisions,
            "--distilled": self.distilled,
            "--lora": self.lora,
            "--with": self.extra,
        }
        return [option for option, value in given.items() if value]


@frozen(kw_only=True)
class CatalogEntry:
    """A repository of the catalog and the model it belongs to."""

    repository: Repository
    model: ModelSpec[Any]

    @property
    def name(self) -> str:
        """Return the name of the download."""
        return self.repository.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the distinct precisions of its files, in the order of the data."""
        precisions = (files.precision for files in self.repository.files)
        return tuple(dict.fromkeys(precision for precision in precisions if precision is not None))


def catalog(
    models: Iterable[ModelSpec[Any]], warn: Callable[[str], None] = lambda _text: None
) -> tuple[CatalogEntry, ...]:
    """Collect the repositories of all models; ``warn`` gets the error of a model that fails to list its own.

    Raises ``RequestError`` when two repositories have the same name, or a companion does not exist.
    """
    entries: list[CatalogEntry] = []
    for model in models:
        try:
            entries += [
                CatalogEntry(repository=repository, model=model) for repository in model.repositories()
            ]
        except LightX2VError as exc:
            warn(str(exc))
    named: dict[str, CatalogEntry] = {}
    for entry in entries:
        if entry.name in named:
            raise RequestError(
                f"duplicate download name {entry.name!r}: models {named[entry.name].model.name!r} and "
                f"{entry.model.name!r}; disable one plugin with --disable-plugin"
            )
        named[entry.name] = entry
    for entry in entries:
        for companion in entry.repository.companions:
            if companion not in named:
                raise RequestError(f"download {entry.name!r} has an unknown companion {companion!r}")
    return tuple(entries)


def sources(entry: CatalogEntry, entries: Sequence[CatalogEntry]) -> tuple[CatalogEntry, ...]:
    """List an entry and the entries that supply its missing files, nearest first."""
    named = {candidate.name: candidate for candidate in entries}
    reached: dict[str, CatalogEntry] = {}
    waiting = [entry]
    while waiting:
        source = waiting.pop(0)
        if source.name not in reached:
            reached[source.name] = source
            waiting += [named[name] for name in source.repository.companions]
    return tuple(reached.values())


def find(request: DownloadRequest, entries: Sequence[CatalogEntry]) -> CatalogEntry | None:
    """Find the one entry that matches a request; ``None`` for a repository outside the catalog.

    Raises ``RequestError`` for an unknown name, with the closest match, and for an ambiguous name, with all matches.
    """
    candidates, exact = _matching(request.what, entries)
    if not candidates:
        if request.what.count("/") == 1:
            return None
        raise RequestError(_unknown(request.what, entries))
    if not exact or request.lora:
        lacks = "no LoRA" if request.lora else "only LoRAs"
        candidates = _narrowed(request, candidates, lacks, lambda entry: _is_whole(request, entry))
    if request.task is not None:
        lacks = f"no download for --task {request.task}"
        candidates = _narrowed(
            request, candidates, lacks, lambda entry: request.task in entry.repository.tasks
        )
    if request.distilled or not (exact or request.lora):
        distilled = _distilled(request, entries)
        lacks = "no distilled model" if distilled else "only distilled models (select with --distilled)"
        candidates = _narrowed(
            request, candidates, lacks, lambda entry: entry.repository.distilled is distilled
        )
    precisions = [name for name in request.precisions.get("", ()) if name not in (ALL, ORIGINAL)]
    for precision in precisions:
        candidates = _narrowed(request, candidates, f"no files in {precision}", _comes_in(precision))
    if len(candidates) > 1 and not exact and not precisions:
        candidates = [entry for entry in candidates if entry.repository.kind == "official"] or candidates
    if len(candidates) > 1:
        lines = "\n".join(
            f"  {entry.name:<34} {entry.repository.summary} ({entry.repository.repo})" for entry in candidates
        )
        raise RequestError(f"{request.what!r} matches more than one model; choose one by name:\n{lines}")
    return candidates[0]


def _matching(what: str, entries: Sequence[CatalogEntry]) -> tuple[list[CatalogEntry], bool]:
    """List the entries that a word matches, and whether by more than the name of a family."""
    word = what.casefold()
    repos = [(entry, entry.repository.repo.casefold()) for entry in entries]
    for exact in (
        [entry for entry in entries if entry.name == word],
        [entry for entry, repo in repos if repo == word],
        [entry for entry, repo in repos if repo.partition("/")[2] == word],
    ):
        if exact:
            return exact, True
    return [entry for entry in entries if word in (entry.model.name, *entry.model.aliases)], False


def _is_whole(request: DownloadRequest, entry: CatalogEntry) -> bool:
    """Return whether an entry is a whole model or, for ``--lora``, a LoRA."""
    kind = entry.repository.kind
    return kind == "lora" if request.lora else kind not in ("lora", "part")


def _distilled(request: DownloadRequest, entries: Sequence[CatalogEntry]) -> bool:
    """Return whether a family request selects distilled models, by option or by an alias that implies it."""
    if request.distilled is not None:
        return request.distilled
    return any(entry.model.aliases.get(request.what.casefold()) for entry in entries)


def _narrowed(
    request: DownloadRequest,
    candidates: list[CatalogEntry],
    lacks: str,
    keep: Callable[[CatalogEntry], bool],
) -> list[CatalogEntry]:
    """Filter the candidates by ``keep``. Raises ``RequestError`` with all candidates when none is left."""
    kept = [entry for entry in candidates if keep(entry)]
    if kept:
        return kept
    lines = "\n".join(
        f"  {entry.name:<34} {', '.join(entry.repository.tasks)}; "
        f"{', '.join(entry.precisions) or 'any precision'}{'; distilled' if entry.repository.distilled else ''}"
        for entry in candidates
    )
    raise RequestError(f"{request.what!r} has {lacks}; available:\n{lines}")


def _comes_in(precision: str) -> Callable[[CatalogEntry], bool]:
    return lambda entry: precision in entry.precisions


def _unknown(what: str, entries: Sequence[CatalogEntry]) -> str:
    if not entries:
        return (
            f"unknown download {what!r}: no loaded plugin lists a repository; install a model plugin, or give a "
            "repository as owner/name"
        )
    names = {entry.name for entry in entries} | {entry.model.name for entry in entries}
    names |= {entry.repository.repo for entry in entries}
    tails = {entry.repository.repo.partition("/")[2] for entry in entries}
    return (
        f"unknown download {what!r}{suggestion(what.casefold(), sorted(names)) or suggestion(what, sorted(tails))}\n"
        "  `lightx2v-core download --list` lists the known names; any other repository is given as owner/name"
    )
