"""Applying the regular expressions of a key map to very many names. Most names match no pattern of most key maps, which
one combined search finds out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from lightx2v_core.spec.components import KeyMap

Search = Callable[[str], object]
#: constructs that change their meaning inside a larger expression: a group number or name, flags, a condition
_PARTICULAR = re.compile(r"\\[0-9]|\(\?(?!:|=|!|<=|<!)")
#: one atom of a pattern, to find its branches: an escaped character, a character class, or any other character
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


class Renames:
    """The ``renames`` and ``drops`` of a key map."""

    def __init__(self, renames: Sequence[tuple[str, str]], drops: Sequence[str]) -> None:
        self._renames = [(re.compile(pattern), text) for pattern, text in renames]
        self._drops = [re.compile(pattern) for pattern in drops]
        self._touches = _any_of([*(pattern for pattern, _ in renames), *drops])

    def touches(self, name: str) -> bool:
        """Return whether any of the patterns matches in a name."""
        return any(search(name) for search in self._touches)

    def renamed(self, name: str) -> str | None:
        """Return the official name of a stored name, followed by ``#part`` if it is a part of a joined tensor; ``None``
        if it is dropped."""
        if not self.touches(name):
            return name
        if any(drop.search(name) for drop in self._drops):
            return None
        for pattern, text in self._renames:
            name = pattern.sub(text, name)
        return name


def renames_of(key_map: KeyMap) -> Renames:
    """Compile the expressions of a key map."""
    return _compiled(tuple(key_map.renames), tuple(key_map.drops))


@lru_cache(maxsize=64)
def _compiled(renames: tuple[tuple[str, str], ...], drops: tuple[str, ...]) -> Renames:
    return Renames(renames, drops)


def _any_of(patterns: Sequence[str]) -> list[Search]:
    """Combine patterns into few search functions; one of them matches a name exactly if one of the patterns does."""
    searches: list[Search] = [re.compile(p).search for p in patterns if _PARTICULAR.search(p)]
    plain = [pattern for pattern in patterns if not _PARTICULAR.search(pattern)]
    first = [pattern[1:] for pattern in plain if is_anchored(pattern)]
    rest = [pattern for pattern in plain if not is_anchored(pattern)]
    if first:  # ``match`` at the start only is many times faster than searching for ^ everywhere
        searches.append(re.compile("|".join(f"(?:{pattern})" for pattern in first)).match)
    if rest:
        searches.append(re.compile("|".join(f"(?:{pattern})" for pattern in rest)).search)
    return searches


def is_anchored(pattern: str) -> bool:
    """Return whether a pattern matches at the start of a name only: it begins with ``^`` and has no other branch at the
    top level."""
    depth = 0
    for atom in _ATOM.findall(pattern):
        depth += (atom == "(") - (atom == ")")
        if atom == "|" and not depth:
            return False
    return pattern.startswith("^") and pattern[1:2] not in ("*", "+", "?", "{")
