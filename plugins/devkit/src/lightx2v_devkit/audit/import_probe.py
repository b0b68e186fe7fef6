"""A program that imports a plugin in a fresh interpreter, calls its hooks, and reports changes and running threads.

``python -m lightx2v_devkit.audit.import_probe MODULE HEAVY...`` prints a line of JSON. If the process then does not
exit by itself, it prints a second line and is terminated.
"""

from __future__ import annotations

import atexit
import builtins
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

from lightx2v_core.api import hookimpl, one_line
from lightx2v_devkit.audit.hook_checks import marks_of

#: seconds that a command waits for threads and functions of plugins before it is terminated
GRACE = 5.0
#: limit of specs per hook
_SPECS = 1000


def state() -> Mapping[str, Any]:
    """Return the process-wide state by its names in messages."""
    shared: dict[str, Any] = {f"os.environ[{name!r}]": value for name, value in os.environ.items()}
    shared["the working directory"] = os.getcwd()
    shared["warnings.filters"] = list(warnings.filters)
    shared |= {f"the handler of {number.name}": signal.getsignal(number) for number in signal.Signals}
    shared |= {f"builtins.{name}": value for name, value in vars(builtins).items() if name != "_"}
    shared |= {
        f"sys.{name}": getattr(sys, name) for name in ("exit", "excepthook", "stdout", "stderr", "stdin")
    }
    shared["the recursion limit"] = sys.getrecursionlimit()
    return shared


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the names of values that changed or disappeared."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if not _same(before.get(name, names), after.get(name, names))]


def _same(one: Any, other: Any) -> bool:
    plain = (str, int, list)
    return bool(one == other) if type(one) in plain and type(other) in plain else one is other


def imported(module: str, heavy: Sequence[str]) -> dict[str, Any]:
    """Import a module and call its hooks.

    Returns the CPU seconds of the import, the packages of ``heavy`` that it imported, its output, and the changes of
    process-wide state.
    """
    printed = io.StringIO()
    stream, sys.stdout = sys.stdout, printed
    before, known = state(), set(sys.modules)
    start = time.process_time()
    imported_module = import_module(module)
    seconds = time.process_time() - start
    brought = [name for name in heavy if name in sys.modules and name not in known]
    for value in list(vars(imported_module).values()):
        if callable(value) and marks_of(value) is not None:
            _ask(value)
    different = changed(before, state())
    text = "" if printed.closed else one_line(printed.getvalue())
    sys.stdout = stream
    return {"seconds": seconds, "heavy": brought, "printed": text, "changed": different}


def _ask(hook: Callable[[], Any]) -> None:
    try:
        list(islice(hook(), _SPECS))
    except BaseException:  # the loader reports problems of hooks
        return


def _recorded(names: list[str]) -> Any:
    """Return a replacement of ``atexit.register`` that records the names of registered functions."""
    register = atexit.register

    def noting(function: Any, *arguments: Any, **named: Any) -> Any:
        names.append(f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}")
        return register(function, *arguments, **named)

    return noting


def _end(say: Callable[[Any], None], at_exit: Sequence[str]) -> None:
    time.sleep(GRACE)
    say({"threads": _kept_by(), "at_exit": list(at_exit)})
    os._exit(0)


def _kept_by() -> list[str]:
    """List the names of threads that Python waits for at exit."""
    return [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the effects of importing the module."""
    assert hookimpl is not None  # imports of the API do not count for this plugin
    stream = os.dup(1)  # stays open even if sys.stdout is closed or replaced

    def say(data: Any) -> None:
        os.write(stream, b"\n" + json.dumps(data).encode() + b"\n")

    at_exit: list[str] = []
    atexit.register = _recorded(at_exit)
    say(imported(arguments[0], arguments[1:]))
    threading.Thread(target=_end, args=(say, at_exit), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
