"""Signals that end a process wait while results get their names, which takes a few milliseconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: what a terminal, a shell, a service manager and a closing window end a program with
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NAMING = "lightx2v-naming"


def uninterrupted(action: Callable[[], None]) -> None:
    """Call ``action`` without an interrupt inside of it. A signal that arrives meanwhile is delivered when it has
    ended, to whoever would have got it before.

    In another thread than the main one, which gets all signals, the action is done by a thread of its own that the
    interpreter waits for before it ends, since it waits for no daemon.
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
    """Wait for other threads that are giving results their names: before a process ends without ceremony."""
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
            if handler not in (
                signal.SIG_IGN,
                None,
            ):  # None: not set by Python, and so not to be set back by it
                before[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            while signal.getsignal(number) is note:
                try:
                    signal.signal(number, handler)
                except (
                    KeyboardInterrupt
                ) as exc:  # by a handler that is back already: the others come back too
                    interrupt = exc
    if interrupt is not None:
        raise interrupt
    for number in waiting:
        signal.raise_signal(number)
