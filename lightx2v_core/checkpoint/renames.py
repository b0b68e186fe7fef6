"""Applies the regular expressions of a key map to very many names: most names are in no pattern of most key maps, and
one look tells that."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from lightx2v_core.spec.components import KeyMap

Search = Callable[[str], object]
#: what means something else inside of a larger expression: a group by its number or name, flags, a condition
_PARTICULAR = re.compile(r"\\[0-9]|\(\?(?!:|=|!|<=|<!)")
#: what is passed over to see where a pattern branches: an escaped character, a class of characters
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


class Renames:
    """The ``renames`` and ``drops`` of a key map."""

    def __init__(self, renames: Sequence[tuple[str, str]], drops: Sequence[str]) -> None:
        self._renames = [(re.compile(pattern), text) for pattern, text in renames]
        self._drops = [re.compile(pattern) for pattern in drops]
        self._touches = _any_of([*(pattern for pattern, _ in renames), *drops])

    def touches(self, name: str) -> bool:
        """Tell whether any of the patterns is in a name."""
        return any(search(name) for search in self._touches)

    def renamed(self, name: str) -> str | None:
        """Give the official name of a stored one, with ``#part`` behind it where it is a part; ``None`` when it is
        dropped."""
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
    """Return functions of which one at least finds something in a name exactly when one of the patterns does."""
    searches: list[Search] = [re.compile(p).search for p in patterns if _PARTICULAR.search(p)]
    plain = [pattern for pattern in patterns if not _PARTICULAR.search(pattern)]
    first = [pattern[1:] for pattern in plain if is_anchored(pattern)]
    rest = [pattern for pattern in plain if not is_anchored(pattern)]
    if first:  # at the start of a name alone, which is many times faster than looking for ^ everywhere
        searches.append(re.compile("|".join(f"(?:{pattern})" for pattern in first)).match)
    if rest:
        searches.append(re.compile("|".join(f"(?:{pattern})" for pattern in rest)).search)
    return searches


def is_anchored(pattern: str) -> bool:
    """Tell whether a pattern matches at the start of a name only: it begins with ``^``, and so does each branch."""
    depth = 0
    for atom in _ATOM.findall(pattern):
        depth += (atom == "(") - (atom == ")")
        if atom == "|" and not depth:
            return False
    return pattern.startswith("^") and pattern[1:2] not in ("*", "+", "?", "{")
