"""What can be downloaded by name: the repositories of the loaded plugins' models, and the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.api import LightX2VError, ModelSpec, Repository, RequestError, suggestion

ORIGINAL = "original"
#: every precision that there is
ALL = "all"


@frozen(kw_only=True)
class DownloadRequest:
    """What a user wants downloaded."""

    #: a name of the catalog, a repository, or a family of models
    what: str
    task: str | None = None
    #: component -> precisions; ``""`` for the components that are not named
    precisions: Mapping[str, tuple[str, ...]] = {}
    #: None: either
    distilled: bool | None = None
    lora: bool = False
    #: optional components to take as well
    extra: tuple[str, ...] = ()

    @property
    def selecting(self) -> list[str]:
        """The options given that only a known repository can answer."""
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
    """A repository of the catalog, and the model it belongs to."""

    repository: Repository
    model: ModelSpec[Any]

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """What its files come in, in the order of the data."""
        precisions = (files.precision for files in self.repository.files)
        return tuple(dict.fromkeys(precision for precision in precisions if precision is not None))


def catalog(
    models: Iterable[ModelSpec[Any]], warn: Callable[[str], None] = lambda _text: None
) -> tuple[CatalogEntry, ...]:
    """List every repository that the models name; ``warn`` hears of a model that cannot name its own. ``RequestError``
    when two are called the same, or a companion is not there."""
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
                f"two downloads are called {entry.name!r}: of the models {named[entry.name].model.name!r} and "
                f"{entry.model.name!r}; leave one plugin out with --disable-plugin"
            )
        named[entry.name] = entry
    for entry in entries:
        for companion in entry.repository.companions:
            if companion not in named:
                raise RequestError(f"download {entry.name!r} names {companion!r}, which no loaded plugin has")
    return tuple(entries)


def sources(entry: CatalogEntry, entries: Sequence[CatalogEntry]) -> tuple[CatalogEntry, ...]:
    """List an entry, then all it takes missing files from, nearest first."""
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
    """Find the one entry that is meant; ``None`` for a repository that nobody knows.

    ``RequestError`` for an unknown name, with the nearest, and for a name that means several, with all of them.
    """
    candidates, exact = _matching(request.what, entries)
    if not candidates:
        if request.what.count("/") == 1:
            return None
        raise RequestError(_unknown(request.what, entries))
    if not exact or request.lora:
        lacks = "no LoRA" if request.lora else "nothing but LoRAs"
        candidates = _narrowed(request, candidates, lacks, lambda entry: _is_whole(request, entry))
    if request.task is not None:
        lacks = f"nothing for --task {request.task}"
        candidates = _narrowed(
            request, candidates, lacks, lambda entry: request.task in entry.repository.tasks
        )
    if request.distilled or not (exact or request.lora):
        distilled = _distilled(request, entries)
        lacks = "nothing distilled" if distilled else "only distilled networks (ask with --distilled)"
        candidates = _narrowed(
            request, candidates, lacks, lambda entry: entry.repository.distilled is distilled
        )
    precisions = [name for name in request.precisions.get("", ()) if name not in (ALL, ORIGINAL)]
    for precision in precisions:
        candidates = _narrowed(request, candidates, f"nothing in {precision}", _comes_in(precision))
    if len(candidates) > 1 and not exact and not precisions:
        candidates = [entry for entry in candidates if entry.repository.kind == "official"] or candidates
    if len(candidates) > 1:
        lines = "\n".join(
            f"  {entry.name:<34} {entry.repository.summary} ({entry.repository.repo})" for entry in candidates
        )
        raise RequestError(f"{request.what!r} means more than one model; give the name of one:\n{lines}")
    return candidates[0]


def _matching(what: str, entries: Sequence[CatalogEntry]) -> tuple[list[CatalogEntry], bool]:
    """The entries a word means, and whether it is more than the name of a family."""
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
    """Whether an entry is a whole model, or the LoRA that is asked for."""
    kind = entry.repository.kind
    return kind == "lora" if request.lora else kind not in ("lora", "part")


def _distilled(request: DownloadRequest, entries: Sequence[CatalogEntry]) -> bool:
    """What is asked of a family: said outright, or by a name that means it."""
    if request.distilled is not None:
        return request.distilled
    return any(entry.model.aliases.get(request.what.casefold()) for entry in entries)


def _narrowed(
    request: DownloadRequest,
    candidates: list[CatalogEntry],
    lacks: str,
    keep: Callable[[CatalogEntry], bool],
) -> list[CatalogEntry]:
    """The entries to keep; when there is none, an error with what there is."""
    kept = [entry for entry in candidates if keep(entry)]
    if kept:
        return kept
    lines = "\n".join(
        f"  {entry.name:<34} {', '.join(entry.repository.tasks)}; "
        f"{', '.join(entry.precisions) or 'any precision'}{'; distilled' if entry.repository.distilled else ''}"
        for entry in candidates
    )
    raise RequestError(f"{request.what!r} has {lacks}; there is:\n{lines}")


def _comes_in(precision: str) -> Callable[[CatalogEntry], bool]:
    return lambda entry: precision in entry.precisions


def _unknown(what: str, entries: Sequence[CatalogEntry]) -> str:
    if not entries:
        return (
            f"no loaded plugin names a repository, so {what!r} is unknown; install a model's plugin, or give a "
            "repository as owner/name"
        )
    names = {entry.name for entry in entries} | {entry.model.name for entry in entries}
    names |= {entry.repository.repo for entry in entries}
    tails = {entry.repository.repo.partition("/")[2] for entry in entries}
    return (
        f"unknown download {what!r}{suggestion(what.casefold(), sorted(names)) or suggestion(what, sorted(tails))}\n"
        "  `lightx2v-core download --list` shows what is known; any repository of the hub can be given as owner/name"
    )
