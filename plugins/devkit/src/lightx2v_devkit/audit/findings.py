"""What a check of plugins finds."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

#: ``error``: something does not work; ``warning``: it works and should be otherwise; ``note``: worth knowing
Level = Literal["error", "warning", "note"]


@frozen(kw_only=True)
class Finding:
    """One thing that was found."""

    level: Level
    text: str
    #: the plugins it is about
    plugins: tuple[str, ...] = field(default=())


def error(plugin: str, text: str) -> Finding:
    """Something of a plugin does not work."""
    return Finding(level="error", text=f"{plugin}: {text}", plugins=(plugin,))


def warning(plugin: str, text: str) -> Finding:
    """Something of a plugin should be otherwise."""
    return Finding(level="warning", text=f"{plugin}: {text}", plugins=(plugin,))


def note(plugin: str, text: str) -> Finding:
    """Something that is worth knowing of a plugin."""
    return Finding(level="note", text=f"{plugin}: {text}", plugins=(plugin,))
