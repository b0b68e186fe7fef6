"""What a new distribution is called, and what may not be called so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from lightx2v_core.api import KINDS, PluginError, first_party, suggestion
from lightx2v_devkit.distributions import canonical

#: what all distributions of plugins begin with
PREFIX = "lightx2v-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: longer ones would break lines, of the code and of listings
_LONGEST = 30
#: words with a meaning where a name may stand, and the guide's example
_RESERVED = frozenset({"auto", "core", "example", "none", "test"})
#: other words for kinds, beside their names with hyphens or in the plural
_OTHER_WORDS: Mapping[str, str] = {
    "attention_backend": "attention",
    "kernel": "attention",
    "loader": "weight_loader",
    "lora": "lora_applier",
}


@frozen(kw_only=True)
class Identity:
    """The names that follow from one: those of the plugin, its distribution, its package and its classes."""

    #: of the entry point and of its implementations, such as ``my-kernel``
    name: str

    @property
    def distribution(self) -> str:
        return f"{PREFIX}{self.name}"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")


def identity(text: str) -> Identity:
    """The identity that a name asks for, given with or without ``lightx2v-``. ``PluginError`` with the nearest name
    that is possible."""
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        possible = re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9]+", "-", canonical(text).removeprefix(PREFIX)))
        possible = possible[:_LONGEST].strip("-")
        hint = f": {possible!r}" if possible and possible != name else ""
        raise PluginError(
            f"a plugin cannot be called {text!r}; names have lower-case letters, digits and hyphens, begin with a "
            f"letter and are at most {_LONGEST} characters long{hint}"
        )
    return Identity(name=name)


def kinds_from(words: Iterable[str]) -> tuple[str, ...]:
    """Kinds by their names, in the order of the hooks and each once; a checkpoint comes with its model. ``PluginError``
    for a word that means none."""
    asked = {_kind(word) for word in words}
    if not asked:
        raise PluginError(f"say what the plugin brings: --kind {'|'.join(KINDS)} (several times for several)")
    if "checkpoint" in asked:  # of a model that knows it, which here is the plugin's own
        asked.add("model")
    return tuple(kind for kind in KINDS if kind in asked)


def _kind(word: str) -> str:
    plain = word.strip().lower().replace("-", "_")
    for tried in (plain, plain.removesuffix("s")):
        kind = _OTHER_WORDS.get(tried, tried)
        if kind in KINDS:
            return kind
    known = [*KINDS, *_OTHER_WORDS]
    raise PluginError(f"no kind {word!r}; there are {', '.join(KINDS)}{suggestion(plain, known)}")


def check_free(
    wanted: Identity,
    kinds: Sequence[str],
    *,
    plugins: Mapping[str, str],
    provided: Mapping[str, Iterable[str]],
) -> None:
    """``PluginError`` when a name is taken. ``plugins`` are the installed ones with their distributions, ``provided``
    the names of implementations by kind, subcommands of the core included."""
    name = wanted.name
    if name in _RESERVED:
        raise PluginError(f"{name!r} has a meaning of its own; choose another name")
    if wanted.distribution in {owner for kind in KINDS for owner in first_party(kind).values()}:
        raise PluginError(f"{wanted.distribution} is a plugin of this project; choose another name")
    for plugin, distribution in plugins.items():
        if name == plugin or canonical(distribution) == wanted.distribution:
            raise PluginError(
                f"the plugin {plugin} ({distribution}) is installed already; choose another name"
            )
    for kind in kinds:
        if name in provided.get(kind, ()) or name in first_party(kind):
            raise PluginError(
                f"{kind} {name!r} exists; two of one name have to be asked for as plugin/name, so choose another"
            )
