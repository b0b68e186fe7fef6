"""Code of plugins, called so that whatever it raises or answers costs one line.

Every function of a spec, every hook and every import of a plugin goes through ``called``. A plugin is trusted code:
this keeps its mistakes from becoming those of the program, and is no defence against one that means harm.
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

#: characters of one line of a plugin's text
LONGEST = 500
#: lines of a message that a plugin wrote for users, and characters of each: paths may be long
_LINES, _WIDTH = 20, 4000
#: signals whose handlers raise
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
_true_name: Callable[[type], str] = type.__dict__["__name__"].__get__


def called(
    who: str, function: Callable[..., T], /, *arguments: object, planning: bool = True, **named: object
) -> T:
    """Call ``function`` of a plugin. ``who`` is it in words, such as ``plugin acme: geometry of model
    acme``.

    Errors that are meant for users pass. Whatever else is raised, ``SystemExit`` and ``KeyboardInterrupt`` included, is
    a ``PluginFault``; an interruption by a signal stays one, also when the function swallows it. While ``planning``,
    what is printed goes to the standard error stream: the output of a command may be read by a program.
    """
    foreign = Foreign(aside=planning)
    try:
        with foreign:
            return function(*arguments, **named)
    except LightX2VError as exc:
        if exc is foreign.interruption or (said := spoken(exc)) is exc:
            raise
        raise said from exc
    except BaseException as exc:
        if exc is foreign.interruption:
            raise
        raise PluginFault(who, in_words(exc), exit_status=2 if planning else 1) from exc


@contextmanager
def unended() -> Iterator[None]:
    """Around the work of a command with objects that plugins built: what asks the process to exit ends no run as if it
    were done. ``RunError`` instead of ``SystemExit``."""
    try:
        yield
    except SystemExit as exc:
        raise RunError(f"the run failed: {in_words(exc)}; --debug shows what asked for it") from exc


class Foreign:
    """Entered around code of a plugin: tells what it raises from what signals raise meanwhile, and keeps their handlers
    and, with ``aside``, the standard streams. All of them belong to the main thread, and are left alone in others."""

    def __init__(self, *, aside: bool) -> None:
        #: what the handler of a signal raised
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
    """The standard error stream in place of both, which stays open whatever becomes of this one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to the stream, where there is one."""
        if self._stream is not None:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, where there is one."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> None:
        """Leave it open: it is not the plugin's."""

    def detach(self) -> NoReturn:
        """Refuse to give the stream away."""
        raise OSError("this stream is not the plugin's to take apart")

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def kind_of(value: object) -> str:
    """Return the name of its class, whatever the class says of itself."""
    return one_line(_true_name(type(value)))


def one_line(text: str) -> str:
    """Return a text of a plugin as one line of a bounded length."""
    plain = str.__str__(text)  # of a subclass, its characters
    words = " ".join(plain[: 4 * LONGEST].split())
    return words if len(words) <= LONGEST and len(plain) <= 4 * LONGEST else words[: LONGEST - 3] + "..."


def shown(value: object) -> str:
    """``repr`` of a value, in one line; its class alone when it has none."""
    text = _text(repr, value)
    return f"<{kind_of(value)}>" if text is None else one_line(text)


def in_words(exc: BaseException) -> str:
    """Return an exception in one line, so that a broken plugin costs one line."""
    text = one_line(_text(str, exc) or "")
    return f"{kind_of(exc)}: {text}" if text else kind_of(exc)


def spoken(exc: LightX2VError) -> LightX2VError:
    """Return the error itself, when its message is one; else one of the same meaning whose message is."""
    text = _text(str, exc)
    said = "" if text is None else _bounded(text)
    ours = type(exc).__module__ == errors.__name__
    if text is not None and text == said and (ours or _text(_status_kind, exc) == "int"):
        return exc
    kinds = (kind for kind in type(exc).__mro__ if kind.__dict__.get("__module__") == errors.__name__)
    kind: type[LightX2VError] = next(kinds)
    return kind(said or f"{kind_of(exc)}, without a message")


def _status_kind(exc: LightX2VError) -> str:
    return kind_of(exc.exit_status)


def traceback_of(exc: BaseException) -> str:
    """Show where an exception came from, for ``plugins show``."""
    import traceback

    try:
        return "".join(traceback.format_exception(exc))[-100 * LONGEST :]
    except BaseException:  # its own methods are asked for what is shown
        return f"{kind_of(exc)}, of which no traceback can be made\n"


def _text(make: Callable[[T], str], value: T) -> str | None:
    """``str`` or ``repr`` of something of a plugin; None when that fails. An interruption passes."""
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
