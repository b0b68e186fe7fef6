"""Signals in tests: a process that ignores signals passes this on to all its child processes."""

from __future__ import annotations

import signal
import threading

#: signals that shells and ``nohup`` set to be ignored
_IGNORED_BY_SHELLS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))


def hear_signals() -> None:
    """Restore the default handlers of signals that this process inherited as ignored; for ``pytest_configure``.

    ``pytest &`` in a script ignores SIGINT and ``nohup pytest`` SIGHUP. Commands started by a test correctly inherit
    and keep that, so signals sent by the test would have no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set handlers
    for number in _IGNORED_BY_SHELLS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
