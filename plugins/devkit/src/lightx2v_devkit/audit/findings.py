"""The findings of a check of plugins."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

#: ``error``: something does not work; ``warning``: something should be changed; ``note``: information
Level = Literal["error", "warning", "note"]


@frozen(kw_only=True)
class Finding:
    """One result of a check."""

    level: Level
    #: one line for the user
    text: str
    #: names of the plugins concerned
    plugins: tuple[str, ...] = field(default=())


def error(plugin: str, text: str) -> Finding:
    """Create a finding for something that does not work."""
    return Finding(level="error", text=f"{plugin}: {text}", plugins=(plugin,))


def warning(plugin: str, text: str) -> Finding:
    """Create a finding for something that should be changed."""
    return Finding(level="warning", text=f"{plugin}: {text}", plugins=(plugin,))


def note(plugin: str, text: str) -> Finding:
    """Create a finding with information."""
    return Finding(level="note", text=f"{plugin}: {text}", plugins=(plugin,))
