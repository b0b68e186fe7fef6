"""Lines that fit a terminal: 100 columns, as wide as characters are shown."""

from __future__ import annotations

import unicodedata

COLUMNS = 100


def folded(line: str, *, indent: int = 4, columns: int = COLUMNS) -> str:
    """A line as one or more of at most ``columns``, broken between words; what comes after the first is indented by
    ``indent`` more. A word that is longer, such as a path, keeps a line of its own."""
    if width(line) <= columns:
        return line
    lead = line[: len(line) - len(line.lstrip(" "))]
    rest = lead + " " * indent
    lines, current = [], lead
    for word in line[len(lead) :].split(" "):
        joined = f"{current} {word}" if current.strip() else f"{current}{word}"
        if width(joined) > columns and current.strip():
            lines.append(current.rstrip())
            joined = f"{rest}{word}"
        current = joined
    return "\n".join([*lines, current.rstrip()])


def width(text: str) -> int:
    """Columns that a terminal shows a text in: East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(text: str, columns: int) -> str:
    """A text as one of at most ``columns``, with dots in the place of what does not fit."""
    if width(text) <= columns:
        return text
    kept = text[:columns]
    while width(kept) > columns - 3:
        kept = kept[:-1]
    return kept + "..."
