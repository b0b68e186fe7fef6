"""The exceptions of the project. Each message says what was asked, what is there and what to do next.

``exit_status`` is what the command line ends with: 2 when the request was wrong, 1 when the run failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class LightX2VError(Exception):
    """Base of all errors meant for users; printed as one message, without a traceback."""

    exit_status = 1


class RequestError(LightX2VError):
    """The request cannot be carried out as it stands: found before any weight is read."""

    exit_status = 2


class ConfigError(RequestError):
    """A configuration file, key or value is wrong."""


class CheckpointError(RequestError):
    """A model folder or file is missing, broken, or not what its configuration says."""


class PluginError(RequestError):
    """A plugin or an implementation of one is unknown, ambiguous or cannot be used here."""


class PluginFault(LightX2VError):
    """Code of a plugin raised what it should not, or answered what it must not; 2 while a run is planned, 1 in it."""

    def __init__(self, who: str, why: str = "", *, exit_status: int = 2) -> None:
        """``who`` is the function in words, ``why`` what it raised in one line."""
        super().__init__(f"{who} failed: {why}" if why else who)
        self.why, self.exit_status = why, exit_status


class OutputError(LightX2VError):
    """A result could not be written."""


class RunError(LightX2VError):
    """The run started and could not be finished."""


class Cancelled(LightX2VError):
    """Whoever asked for the run does not want it any more. A listener of events raises it; nothing is left behind."""

    exit_status = 130


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of ``known``, or an empty string."""
    import difflib

    if len(word) > 200:  # no name is, and comparing takes the square of it
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def shortened(items: Sequence[str], most: int = 8) -> str:
    """``"a, b, c"``, or ``"a, b and 5 more"`` when there are over ``most`` of them: a message that a file fills with
    100,000 names can still be read."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def first_lines(lines: Sequence[str], most: int = 15) -> list[str]:
    """``lines``, or the first ``most`` of them and how many more there are: no message is longer than 20 lines."""
    return [*lines] if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]
