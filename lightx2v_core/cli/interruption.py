"""Signal handling of commands: SIGINT, SIGTERM and SIGHUP are treated as the same interrupt."""

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

#: exit status of an interrupted command
INTERRUPTED = 130
#: longest delay of an interrupt during the import of torch, in seconds
_PATIENCE = 10.0


class Interrupted(KeyboardInterrupt):
    """A signal interrupts the command.

    Not a plain ``KeyboardInterrupt``: once one has passed through source text run by ``exec`` or ``eval``, which data
    classes and named tuples use, ``python -m`` ends by SIGINT instead of with the requested exit status.
    """


class Interruption:
    """The signal handler, from the first line of ``main`` to the end of the process.

    While a command runs, a signal raises ``Interrupted``, delayed during the import of torch. Once the result has its
    name (``finish``), signals have no effect. Once the exit status is known (``end``), a signal ends the process
    immediately with that status.
    """

    def __init__(self) -> None:
        """Initialize the handler; ``installed`` registers it."""
        #: end of the message of an interrupted command: the state that remains
        self.kept = "nothing was left behind"
        self._arrived = False
        #: end of the delay of signals during an import (``time.monotonic``)
        self._patience: float | None = None
        self._finished = False
        self._status: int | None = None

    @property
    def pending(self) -> bool:
        """Return whether a signal arrived before the result. Its exception may have been swallowed."""
        return self._arrived and not self._finished

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
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
        """Mark the result as named: from now on the command ends with 0 despite signals."""
        self._finished = True

    def watched(self, emit: Emit) -> Emit:
        """Wrap a listener to raise ``Interrupted`` if the exception of a signal was lost.

        It can be lost in a callback of a library, in a finalizer, or in a plugin that catches everything.
        """

        def listen(event: Event) -> None:
            if self.pending:
                raise Interrupted
            emit(event)

        return listen

    def told(self) -> int:
        """Report the interruption, and return the exit status."""
        self.finish()  # further signals have no effect
        with suppress(OSError):  # the reader of our messages may have ended, often by the same signal
            click.echo(f"interrupted; {self.kept}", err=True)  # click has ended the line
        return INTERRUPTED

    def end(self, status: int) -> None:
        """Record the exit status: from now on a signal ends the process immediately."""
        _flush()
        self._status = status

    @contextmanager
    def installed(self, *, to_the_end: bool) -> Iterator[None]:
        """Handle the signals that have no other handler and are not ignored.

        ``to_the_end``: the process ends after the block, and signals are ignored once its last Python code has run;
        otherwise the previous handlers are restored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        free = [n for n in SIGNALS if signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler)]
        before = {number: signal.signal(number, self) for number in free}
        if to_the_end:
            atexit.register(_ignore, free)  # the first registered is called last
            sys.unraisablehook = _unraisable
        try:
            yield
        finally:
            if not to_the_end:
                for number, handler in before.items():
                    signal.signal(number, handler)


def _in_torch(frame: FrameType | None) -> bool:
    """Return whether torch is being imported. An exception that passes through its C++ code aborts the process."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def current_interruption() -> Interruption:
    """Return the interruption of the running command.

    For a command called without ``main``, this is a new one, which handles no signals.
    """
    context = click.get_current_context(silent=True)
    held = None if context is None else context.find_object(Interruption)
    return held if held is not None else Interruption()


def _ignore(numbers: list[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _unraisable(problem: Any) -> None:
    """Suppress the traceback of an interrupt in a finalizer; ``watched`` raises it again."""
    if not issubclass(problem.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(problem)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or without a reader
            stream.flush()
