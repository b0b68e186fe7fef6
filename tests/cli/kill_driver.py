"""Runs command lines in forks of a process that has imported everything, and sends them a signal at a certain place.

A line of JSON on stdin is one trial: ``argv``; ``log``, a file that gets a line for every call that changes a name or
forces data to the disk; ``err``, a file for the output; and when to send ``signal``: ``before`` or ``after`` the
call of that number, or ``delay`` seconds after the beginning of ``main``. The answer is the exit status, negative for a
signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch  # noqa: F401

from lightx2v_core.cli import main

#: what a result gets its name by, and what else changes what lies in a folder
CALLS = ("replace", "rename", "link", "unlink", "mkdir", "rmdir", "fsync", "open")


def watch(trial: dict[str, Any]) -> None:
    """Count calls, and send the signal at the wanted one."""
    log = os.open(trial["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen = 0

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            writes = name != "open" or (len(arguments) > 1 and arguments[1] & os.O_CREAT)
            if threading.current_thread() is not threading.main_thread() or not writes:
                return real(*arguments, **named)
            seen += 1
            number = seen
            os.write(log, f"{name} {arguments[0]}\n".encode())
            if trial.get("before") == number:
                os.kill(os.getpid(), getattr(signal, trial["signal"]))
            try:
                return real(*arguments, **named)
            finally:
                if trial.get("after") == number:
                    os.kill(os.getpid(), getattr(signal, trial["signal"]))

        call.__name__ = name
        setattr(os, name, call)
        if real in os.supports_dir_fd:
            os.supports_dir_fd.add(call)

    for name in CALLS:
        watched(name)


def prepare(trial: dict[str, Any]) -> None:
    """In the fork: what a shell gives a command."""
    printed = os.open(trial["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    watch(trial)
    sys.argv = ["lightx2v-core", *trial["argv"]]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in what a shell starts in the background
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def handled(child: int) -> bool:
    """Whether the handlers of ``main`` are there (that of SIGHUP is set last), or the process has ended."""
    text = Path(f"/proc/{child}/status").read_text()
    caught = int(text.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1) or "\nState:\tZ" in text


def serve() -> bool:
    """Whether this is a fork, which is to run the command line."""
    for line in sys.stdin:
        trial = json.loads(line)
        child = os.fork()
        if child == 0:
            prepare(trial)
            return True
        if "delay" in trial:
            while not handled(child):
                time.sleep(0.001)
            time.sleep(trial["delay"])
            os.kill(child, getattr(signal, trial["signal"]))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return False


if __name__ == "__main__" and serve():
    main()
