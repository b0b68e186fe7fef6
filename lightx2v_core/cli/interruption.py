"""What every command does about a signal that ends it: SIGINT, SIGTERM and SIGHUP are one and the same interrupt."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from lightx2v_core.checkpoint.interruption import SIGNALS, finish_naming

if TYPE_CHECKING:
    from lightx2v_core.events import Emit, Event

#: the exit status of what was interrupted
INTERRUPTED = 130
#: seconds that an interrupt waits at most for torch to be imported
_PATIENCE = 10.0


class Interrupted(KeyboardInterrupt):
    """A signal interrupts the command.

    No plain ``KeyboardInterrupt``: once one of those has left source that ``exec`` or ``eval`` was given as text, as
    data classes and named tuples are made of, ``python -m`` ends by SIGINT and not with the status it was told.
    """


class Interruption:
    """The handler of those signals, from the first line of ``main`` to the end of the process.

    While a command works, a signal is ``Interrupted``, as soon as torch is not being imported any more. Once its result
    has its name (``finish``), signals change nothing any more. When the exit status is known (``end``), one ends the
    process at once, with that status.
    """

    def __init__(self) -> None:
        #: what a command keeps when it is interrupted, in the words of its message
        self.kept = "nothing was left behind"
        self._arrived = False
        #: until when (``time.monotonic``) signals may wait for an import
        self._patience: float | None = None
        self._finished = False
        self._status: int | None = None

    @property
    def pending(self) -> bool:
        """Whether a signal arrived before there was a result. Something may have swallowed its exception."""
        return self._arrived and not self._finished

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._status is not None:
            _flush()
            finish_naming()
            os._exit(self._status)
        if not self._finished:
            self._arrived = True
            if not (_in_torch(frame) and self._may_wait()):
                raise Interrupted
            again = threading.Timer(0.05, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()

    def _may_wait(self) -> bool:
        if self._patience is None:
            self._patience = time.monotonic() + _PATIENCE
        return time.monotonic() < self._patience

    def finish(self) -> None:
        """The result has its name: from here on the command ends with 0, whatever arrives."""
        self._finished = True

    def watched(self, emit: Emit) -> Emit:
        """A listener that ends the command when a signal arrived and its exception went missing: in a callback of a
        library, in a finalizer, in a plugin that catches everything."""

        def listen(event: Event) -> None:
            if self.pending:
                raise Interrupted
            emit(event)

        return listen

    def told(self) -> int:
        """Say that the command was interrupted; the exit status of that."""
        self.finish()  # another signal changes nothing of it
        with suppress(OSError):  # whoever read our messages may have gone, often with the signal
            click.echo(f"interrupted; {self.kept}", err=True)  # click has ended the line
        return INTERRUPTED

    def end(self, status: int) -> None:
        """The exit status is known, and nothing is left to be done."""
        _flush()
        self._status = status

    @contextmanager
    def installed(self, *, to_the_end: bool) -> Iterator[None]:
        """Be the handler of the signals that nobody else handles or ignores. ``to_the_end``: the process ends after the
        block, and from when its last Python code has run, signals are ignored; otherwise they are set back."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        free = [n for n in SIGNALS if signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler)]
        before = {number: signal.signal(number, self) for number in free}
        if to_the_end:
            atexit.register(_ignore, free)  # what is registered first is called last
            sys.unraisablehook = _unraisable
        try:
            yield
        finally:
            if not to_the_end:
                for number, handler in before.items():
                    signal.signal(number, handler)


def _in_torch(frame: FrameType | None) -> bool:
    """Whether torch is being imported. An exception that passes through its C++ code there aborts the process."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def current_interruption() -> Interruption:
    """Give the interruption of the command that runs; of a command that is called without ``main`` a new one, which
    handles no signal."""
    context = click.get_current_context(silent=True)
    held = None if context is None else context.find_object(Interruption)
    return held if held is not None else Interruption()


def _ignore(numbers: list[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _unraisable(problem: Any) -> None:
    """An interrupt inside a finalizer is no fault to show a traceback of: ``watched`` acts on it."""
    if not issubclass(problem.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(problem)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
