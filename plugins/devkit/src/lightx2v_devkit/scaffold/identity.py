"""Names of a new distribution, and the rules for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from lightx2v_core.api import KINDS, PluginError, first_party, suggestion
from lightx2v_devkit.distributions import canonical

#: prefix of all plugin distributions
PREFIX = "lightx2v-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: longer names would exceed line lengths of code and listings
_LONGEST = 30
#: names with a special meaning, and the example of the guide
_RESERVED = frozenset({"auto", "core", "example", "none", "test"})
#: alternative words for kinds, besides their names with hyphens or in the plural
_OTHER_WORDS: Mapping[str, str] = {
    "attention_backend": "attention",
    "kernel": "attention",
    "loader": "weight_loader",
    "lora": "lora_applier",
}


@frozen(kw_only=True)
class Identity:
    """The name of a plugin, and those of its distribution and package."""

    #: name of the entry point and the implementations, such as ``my-kernel``
    name: str

    @property
    def distribution(self) -> str:
        """Return the name of the distribution."""
        return f"{PREFIX}{self.name}"

    @property
    def package(self) -> str:
        """Return the name of the import package."""
        return self.distribution.replace("-", "_")


def identity(text: str) -> Identity:
    """Parse a name, given with or without ``lightx2v-``.

    Raises ``PluginError`` with the nearest valid name.
    """
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        possible = re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9]+", "-", canonical(text).removeprefix(PREFIX)))
        possible = possible[:_LONGEST].strip("-")
        hint = f": {possible!r}" if possible and possible != name else ""
        raise PluginError(
            f"invalid plugin name {text!r}; names consist of lower-case letters, digits and hyphens, start with a "
            f"letter and are at most {_LONGEST} characters long{hint}"
        )
    return Identity(name=name)


def kinds_from(words: Iterable[str]) -> tuple[str, ...]:
    """Parse kinds, in the order of the hooks and without duplicates; a checkpoint includes its model.

    Raises ``PluginError`` for unknown words.
    """
    wanted = set(map(_kind, words))
    if not wanted:
        raise PluginError(f"missing kind of implementation: --kind {'|'.join(KINDS)} (may be repeated)")
    if "checkpoint" in wanted:  # it belongs to a model, here that of the plugin itself
        wanted.add("model")
    return tuple(kind for kind in KINDS if kind in wanted)


def _kind(word: str) -> str:
    plain = word.strip().lower().replace("-", "_")
    for tried in (plain, plain.removesuffix("s")):
        kind = _OTHER_WORDS.get(tried, tried)
        if kind in KINDS:
            return kind
    known = [*KINDS, *_OTHER_WORDS]
    raise PluginError(f"unknown kind {word!r}; choose from {', '.join(KINDS)}{suggestion(plain, known)}")


def check_free(
    wanted: Identity,
    kinds: Sequence[str],
    *,
    plugins: Mapping[str, str],
    provided: Mapping[str, Iterable[str]],
) -> None:
    """Raise ``PluginError`` if a name is taken.

    ``plugins`` maps installed plugins to their distributions, ``provided`` kinds to names of implementations, including
    subcommands of the core.
    """
    name = wanted.name
    if name in _RESERVED:
        raise PluginError(f"{name!r} is a reserved name; choose another name")
    if wanted.distribution in {owner for kind in KINDS for owner in first_party(kind).values()}:
        raise PluginError(f"{wanted.distribution} is a plugin of this project; choose another name")
    for plugin, distribution in plugins.items():
        if name == plugin or canonical(distribution) == wanted.distribution:
            raise PluginError(
                f"the plugin {plugin} ({distribution}) is already installed; choose another name"
            )
    for kind in kinds:
        if name in provided.get(kind, ()) or name in first_party(kind):
            raise PluginError(
                f"{kind} {name!r} exists, so both would need qualified names (plugin/name); choose another name"
            )
