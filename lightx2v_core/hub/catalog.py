"""What can be downloaded by name: the repositories of the loaded plugins' models, and the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.errors import PluginFault, RequestError, suggestion
from lightx2v_core.spec.components import Repository
from lightx2v_core.spec.specs import ModelSpec

ORIGINAL = "original"
#: every precision that there is
ALL = "all"


@frozen(kw_only=True)
class Ask:
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
    def chooses(self) -> list[str]:
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
class Entry:
    """A repository of the catalog, and the model it belongs to."""

    repository: Repository
    model: ModelSpec[Any]

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """What its files come in, in the order of the data."""
        found = [files.precision for files in self.repository.files if files.precision is not None]
        return tuple(dict.fromkeys(found))


def catalog(
    models: Iterable[ModelSpec[Any]], warn: Callable[[str], None] = lambda _text: None
) -> tuple[Entry, ...]:
    """Every repository that the models name; ``warn`` hears of a model that cannot name its own. ``RequestError`` when
    two are called the same, or a companion is not there."""
    entries: list[Entry] = []
    for model in models:
        try:
            entries += [Entry(repository=repository, model=model) for repository in model.repositories()]
        except PluginFault as exc:
            warn(str(exc))
    named: dict[str, Entry] = {}
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


def sources(entry: Entry, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """An entry, then all it takes missing files from, nearest first."""
    named = {item.name: item for item in entries}
    found: dict[str, Entry] = {}
    waiting = [entry]
    while waiting:
        item = waiting.pop(0)
        if item.name not in found:
            found[item.name] = item
            waiting += [named[name] for name in item.repository.companions]
    return tuple(found.values())


def find(ask: Ask, entries: Sequence[Entry]) -> Entry | None:
    """The one entry that is meant; ``None`` for a repository that nobody knows.

    ``RequestError`` for an unknown name, with the nearest, and for a name that means several, with all of them.
    """
    found, exact = _matching(ask.what, entries)
    if not found:
        if ask.what.count("/") == 1:
            return None
        raise RequestError(_unknown(ask.what, entries))
    if not exact or ask.lora:
        found = _narrowed(
            ask, found, "no LoRA" if ask.lora else "nothing but LoRAs", lambda item: _whole(ask, item)
        )
    if ask.task is not None:
        found = _narrowed(
            ask, found, f"nothing for --task {ask.task}", lambda item: ask.task in item.repository.tasks
        )
    if ask.distilled or not (exact or ask.lora):
        wanted = _distilled(ask, entries)
        word = "nothing distilled" if wanted else "only distilled networks (ask with --distilled)"
        found = _narrowed(ask, found, word, lambda item: item.repository.distilled is wanted)
    asked = [item for item in ask.precisions.get("", ()) if item not in (ALL, ORIGINAL)]
    for precision in asked:
        found = _narrowed(ask, found, f"nothing in {precision}", _comes_in(precision))
    if len(found) > 1 and not exact and not asked:
        found = [item for item in found if item.repository.kind == "official"] or found
    if len(found) > 1:
        lines = "\n".join(
            f"  {item.name:<34} {item.repository.summary} ({item.repository.repo})" for item in found
        )
        raise RequestError(f"{ask.what!r} means more than one model; give the name of one:\n{lines}")
    return found[0]


def _matching(what: str, entries: Sequence[Entry]) -> tuple[list[Entry], bool]:
    """The entries a word means, and whether it is more than the name of a family."""
    word = what.casefold()
    named = [item for item in entries if item.name == word]
    repos = [(item, item.repository.repo.casefold()) for item in entries]
    whole = [item for item, repo in repos if repo == word]
    tails = [item for item, repo in repos if repo.partition("/")[2] == word]
    if found := named or whole or tails:
        return found, True
    return [item for item in entries if word in (item.model.name, *item.model.aliases)], False


def _whole(ask: Ask, item: Entry) -> bool:
    """Whether an entry is a whole model, or the LoRA that is asked for."""
    return item.repository.kind == "lora" if ask.lora else item.repository.kind not in ("lora", "part")


def _distilled(ask: Ask, entries: Sequence[Entry]) -> bool:
    """What is asked of a family: said outright, or by a name that means it."""
    if ask.distilled is not None:
        return ask.distilled
    return any(item.model.aliases.get(ask.what.casefold()) for item in entries)


def _narrowed(ask: Ask, found: list[Entry], lacks: str, keep: Callable[[Entry], bool]) -> list[Entry]:
    """The entries to keep; when there is none, an error with what there is."""
    kept = [item for item in found if keep(item)]
    if kept:
        return kept
    lines = "\n".join(
        f"  {item.name:<34} {', '.join(item.repository.tasks)}; {', '.join(item.precisions) or 'any precision'}"
        f"{'; distilled' if item.repository.distilled else ''}"
        for item in found
    )
    raise RequestError(f"{ask.what!r} has {lacks}; there is:\n{lines}")


def _comes_in(precision: str) -> Callable[[Entry], bool]:
    return lambda item: precision in item.precisions


def _unknown(what: str, entries: Sequence[Entry]) -> str:
    if not entries:
        return (
            f"no loaded plugin names a repository, so {what!r} is unknown; install a model's plugin, or give a "
            "repository as owner/name"
        )
    names = {item.name for item in entries} | {item.model.name for item in entries}
    names |= {item.repository.repo for item in entries}
    tails = {item.repository.repo.partition("/")[2] for item in entries}
    return (
        f"unknown download {what!r}{suggestion(what.casefold(), sorted(names)) or suggestion(what, sorted(tails))}\n"
        "  `lightx2v-core download --list` shows what is known; any repository of the hub can be given as owner/name"
    )
