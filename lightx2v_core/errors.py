"""The exceptions of the project. Each message states what was requested, what was found and what to do next.

``exit_status`` is the exit status of the command line: 2 for a wrong request, 1 for a failed run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class LightX2VError(Exception):
    """Base class of errors meant for users. Printed as one message, without a traceback."""

    exit_status = 1


class RequestError(LightX2VError):
    """The request cannot be carried out as given. Raised before any weight is read."""

    exit_status = 2


class ConfigError(RequestError):
    """A configuration file, key or value is wrong."""


class CheckpointError(RequestError):
    """A model folder or file is missing, broken, or does not match its configuration."""


class PluginError(RequestError):
    """A plugin or one of its implementations is unknown, ambiguous or not usable on this machine."""


class PluginFault(LightX2VError):
    """Plugin code raised an unexpected exception or returned an invalid value.

    The exit status is 2 while a run is planned and 1 during the run.
    """

    def __init__(self, who: str, why: str = "", *, exit_status: int = 2) -> None:
        """Describe the plugin function (``who``) and, in one line, the exception that it raised (``why``)."""
        super().__init__(f"{who} failed: {why}" if why else who)
        self.why, self.exit_status = why, exit_status


class OutputError(LightX2VError):
    """A result could not be written."""


class RunError(LightX2VError):
    """The run started but did not finish."""


class Cancelled(LightX2VError):
    """The caller cancelled the run. Raised by an event listener; no partial output remains."""

    exit_status = 130


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest match in ``known``, or an empty string."""
    import difflib

    if len(word) > 200:  # longer than any name, and the comparison is quadratic
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def shortened(items: Sequence[str], most: int = 8) -> str:
    """Join items as ``"a, b, c"``, or as ``"a, b and 5 more"`` when there are over ``most`` of them.

    Keeps a message readable when a file supplies 100,000 names.
    """
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def first_lines(lines: Sequence[str], most: int = 15) -> list[str]:
    """Return ``lines``, or the first ``most`` of them and the number of the rest. Keeps messages below 20 lines."""
    return [*lines] if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]
