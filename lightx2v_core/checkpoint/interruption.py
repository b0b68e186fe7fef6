"""Deferring signals that end a process while results are renamed into place, which takes a few milliseconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: signals with which a terminal, a shell, a service manager or a closing window ends a program
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NAMING = "lightx2v-naming"


def uninterrupted(action: Callable[[], None]) -> None:
    """Call ``action`` with signals deferred. A signal that arrives meanwhile is delivered to its handler afterwards.

    Outside of the main thread, which receives all signals, the action runs in a new non-daemon thread: the interpreter
    waits for it before it exits.
    """
    if threading.current_thread() is threading.main_thread():
        with _held():
            action()
        return
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=act, name=_NAMING, daemon=False)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


def finish_naming() -> None:
    """Join the threads that rename results into place; called before ``os._exit``."""
    for thread in threading.enumerate():
        if thread.name == _NAMING:
            thread.join()


@contextmanager
def _held() -> Iterator[None]:
    waiting: list[int] = []

    def note(number: int, _frame: object) -> None:
        waiting.append(number)

    before: dict[int, Callable[[int, FrameType | None], object] | int] = {}
    interrupt: KeyboardInterrupt | None = None
    try:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            # None: not installed by Python, which could not restore it
            if handler not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            while signal.getsignal(number) is note:
                try:
                    signal.signal(number, handler)
                except KeyboardInterrupt as exc:  # from a handler restored before; restore the others as well
                    interrupt = exc
    if interrupt is not None:
        raise interrupt
    for number in waiting:
        signal.raise_signal(number)
