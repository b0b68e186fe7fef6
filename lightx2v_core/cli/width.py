"""Wrapping of lines for a terminal of 100 columns, by display width of characters."""

from __future__ import annotations

import unicodedata

COLUMNS = 100


def folded(line: str, *, indent: int = 4, columns: int = COLUMNS) -> str:
    """Wrap a line between words to at most ``columns``, indenting continuation lines by ``indent`` more.

    A longer word, such as a path, keeps a line of its own.
    """
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
    """Return the display width of a text in columns; East Asian characters have two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(text: str, columns: int) -> str:
    """Truncate a text to at most ``columns``, ending in dots."""
    if width(text) <= columns:
        return text
    kept = text[:columns]
    while width(kept) > columns - 3:
        kept = kept[:-1]
    return kept + "..."
