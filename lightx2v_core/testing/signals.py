"""Signals in tests: a process that was started to ignore them hands that on to every process that it starts."""

from __future__ import annotations

import signal
import threading

#: the signals that shells and ``nohup`` have what they start ignore
_IGNORED_BY_SHELLS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))


def hear_signals() -> None:
    """Set back, in this process, the signals that it was started to ignore: for ``pytest_configure``.

    A script's ``pytest &`` ignores SIGINT and ``nohup pytest`` SIGHUP. A command that a test starts inherits that and
    keeps it, as it should, so the signal that the test sends to it has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # no other may set a handler
    for number in _IGNORED_BY_SHELLS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
