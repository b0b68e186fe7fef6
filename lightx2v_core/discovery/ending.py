"""Timely termination of the process, even if a plugin left threads running."""

from __future__ import annotations

import os
import sys
import threading
import time

#: seconds that threads and ``atexit`` functions get after all work is done and all files are written
GRACE = 5.0


def end_in_time(status: int) -> None:
    """End the process with ``status`` if something keeps the process alive for more than ``GRACE`` seconds from now.

    Call it last: all output files are complete then, so only leftover threads are cut off.
    """
    threading.Thread(target=_end, args=(status,), name="lightx2v-ending", daemon=True).start()


def held_by() -> list[str]:
    """Return the names of the threads that Python waits for at exit."""
    return [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]


def _end(status: int) -> None:
    time.sleep(GRACE)
    threads = held_by()
    what = f"thread {', '.join(threads)}" if threads else "an atexit function"
    for stream, text in ((sys.stdout, ""), (sys.stderr, _LINE.format(seconds=GRACE, what=what))):
        try:
            stream.write(text)
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, or nobody reads it any more
            continue
    os._exit(status)


_LINE = (
    "warning: {what} of a plugin still ran {seconds:.0f} s after the end and was stopped; see plugins check\n"
)
