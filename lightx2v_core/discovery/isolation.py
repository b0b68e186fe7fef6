"""Isolation of plugin code: any exception or wrong result becomes a one-line error.

Every function of a spec, every hook and every import of a plugin is called through ``called``. Plugins are trusted
code: this contains their bugs and is not a defense against malicious ones.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO, TypeVar

from lightx2v_core import errors
from lightx2v_core.errors import LightX2VError, PluginFault, RunError

T = TypeVar("T")

#: most characters of a one-line text from a plugin
LONGEST = 500
#: most lines of a plugin's error message for users, and most characters of each line: paths may be long
_LINES, _WIDTH = 20, 4000
#: signals whose handlers raise
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
_true_name: Callable[[type], str] = type.__dict__["__name__"].__get__


def called(
    who: str, function: Callable[..., T], /, *arguments: object, planning: bool = True, **named: object
) -> T:
    """Call ``function`` of a plugin. ``who`` describes it, such as ``plugin acme: geometry of model acme``.

    Errors for users pass. Any other exception, including ``SystemExit`` and ``KeyboardInterrupt``, is raised as a
    ``PluginFault``. An exception from a signal handler passes, even if the function catches it. While ``planning``,
    printed text goes to the standard error stream, since a program may parse the output of the command.
    """
    foreign = Foreign(aside=planning)
    try:
        with foreign:
            return function(*arguments, **named)
    except LightX2VError as exc:
        if exc is foreign.interruption or (safe := spoken(exc)) is exc:
            raise
        raise safe from exc
    except BaseException as exc:
        if exc is foreign.interruption:
            raise
        raise PluginFault(who, in_words(exc), exit_status=2 if planning else 1) from exc


@contextmanager
def unended() -> Iterator[None]:
    """Convert ``SystemExit`` from objects that plugins built to ``RunError``, so that it does not look like success."""
    try:
        yield
    except SystemExit as exc:
        raise RunError(f"the run failed: {in_words(exc)}; --debug shows where it was raised") from exc


class Foreign:
    """A context manager around plugin code that tells its exceptions from those of signal handlers.

    Restores the signal handlers and, with ``aside``, the standard streams. Only in the main thread; does nothing in
    others.
    """

    def __init__(self, *, aside: bool) -> None:
        #: exception that a signal handler raised
        self.interruption: BaseException | None = None
        self._main = threading.current_thread() is threading.main_thread()
        self._aside = aside and self._main
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def __enter__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        for number in _SIGNALS if self._main else ():
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._noting)
        if self._aside:
            stand_in: object = Aside(sys.stderr)
            sys.stdout = sys.stderr = stand_in

    def __exit__(self, *_raised: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._aside:
            sys.stdout, sys.stderr = self._streams
        if self.interruption is not None:
            raise self.interruption

    def _noting(self, number: int, frame: FrameType | None) -> object:
        try:
            return self._handlers[number](number, frame)
        except BaseException as exc:
            self.interruption = exc
            raise


class Aside:
    """A stand-in for both standard streams that writes to standard error, and never closes it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to the stream, if there is one."""
        if self._stream is not None:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if there is one."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: the stream does not belong to the plugin."""

    def detach(self) -> NoReturn:
        """Raise ``OSError``: the stream does not belong to the plugin."""
        raise OSError("a plugin cannot detach the standard streams")

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def kind_of(value: object) -> str:
    """Return the real name of the class of a value, even if the class overrides it."""
    return one_line(_true_name(type(value)))


def one_line(text: str) -> str:
    """Convert a text from a plugin to one line of bounded length."""
    plain = str.__str__(text)  # the characters, also of a subclass
    words = " ".join(plain[: 4 * LONGEST].split())
    return words if len(words) <= LONGEST and len(plain) <= 4 * LONGEST else words[: LONGEST - 3] + "..."


def shown(value: object) -> str:
    """Return the ``repr`` of a value in one line, or only its class if that fails."""
    text = _text(repr, value)
    return f"<{kind_of(value)}>" if text is None else one_line(text)


def in_words(exc: BaseException) -> str:
    """Format an exception of a plugin in one line."""
    text = one_line(_text(str, exc) or "")
    return f"{kind_of(exc)}: {text}" if text else kind_of(exc)


def spoken(exc: LightX2VError) -> LightX2VError:
    """Return the error itself if its message is a bounded text, else an error of the same base class with one."""
    text = _text(str, exc)
    bounded = "" if text is None else _bounded(text)
    ours = type(exc).__module__ == errors.__name__
    if text is not None and text == bounded and (ours or _text(_status_kind, exc) == "int"):
        return exc
    kinds = (kind for kind in type(exc).__mro__ if kind.__dict__.get("__module__") == errors.__name__)
    kind: type[LightX2VError] = next(kinds)
    return kind(bounded or f"{kind_of(exc)}, without a message")


def _status_kind(exc: LightX2VError) -> str:
    return kind_of(exc.exit_status)


def traceback_of(exc: BaseException) -> str:
    """Format the traceback of an exception, for ``plugins show``."""
    import traceback

    try:
        return "".join(traceback.format_exception(exc))[-100 * LONGEST :]
    except BaseException:  # formatting calls methods of the exception
        return f"{kind_of(exc)}, without a readable traceback\n"


def _text(make: Callable[[T], str], value: T) -> str | None:
    """Apply ``str`` or ``repr`` to an object of a plugin; None if that fails. Exceptions of signal handlers pass."""
    foreign = Foreign(aside=True)
    try:
        with foreign:
            return str.__str__(make(value))
    except BaseException as exc:
        if exc is foreign.interruption:
            raise
        return None


def _bounded(text: str) -> str:
    lines = text[: _LINES * _WIDTH].split("\n")
    cut = [line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..." for line in lines[:_LINES]]
    return "\n".join(cut)
