"""The end of the process: in time, whatever plugins left running."""

from __future__ import annotations

import os
import sys
import threading
import time

#: seconds that threads and functions registered with ``atexit`` have, once everything is done and written
GRACE = 5.0


def end_in_time(status: int) -> None:
    """End the process with ``status``, should something keep it alive for longer than ``GRACE`` after its work. To be
    called last: what a command makes has its name by then, and only what was left running is cut off."""
    threading.Thread(target=_end, args=(status,), name="lightx2v-ending", daemon=True).start()


def held_by() -> list[str]:
    """Return the threads that Python waits for at its end, by name."""
    return [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]


def _end(status: int) -> None:
    time.sleep(GRACE)
    threads = held_by()
    what = f"the thread {', '.join(threads)}" if threads else "a function that was registered with atexit"
    for stream, text in ((sys.stdout, ""), (sys.stderr, _LINE.format(seconds=GRACE, what=what))):
        try:
            stream.write(text)
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, or nobody reads it any more
            continue
    os._exit(status)


_LINE = "warning: {what} of a plugin went on for {seconds:.0f} s after the end and was cut off; see plugins check\n"
