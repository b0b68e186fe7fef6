"""``python beside.py COUNT -- COMMAND...``: runs a command beside COUNT busy loops, as on a machine that is in use.

The command takes the place of this process: signals reach it and its status is passed on, with nothing in between.
The loops are its children, and each ends by itself as soon as its parent is gone, however that came.
"""

from __future__ import annotations

import os
import subprocess
import sys

#: keeps one processor busy for as long as the process with the given id is its parent
LOOP = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""


def main(words: list[str]) -> None:
    if len(words) < 3 or not words[0].isdigit() or words[1] != "--":
        sys.exit(__doc__)
    loop = [sys.executable, "-I", "-S", "-c", LOOP, str(os.getpid())]
    for _ in range(int(words[0])):
        # in a group of their own, as Ctrl-C is meant for the command; not in a session of their own: Linux shares the
        # processors between sessions first, and six of them would leave the command a seventh, for all its processes
        subprocess.Popen(
            loop, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=os.setpgrp,
        )  # fmt: skip
    try:
        os.execvp(words[2], words[2:])
    except OSError as error:
        sys.exit(f"{words[2]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
