"""``beside.py``, which makes a machine busy, and leaves it as it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BESIDE = [sys.executable, str(Path(__file__).with_name("beside.py"))]
#: says that it runs, and waits for a line
WAITS = [sys.executable, "-c", "print('here', flush=True); input()"]

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc"),
]


def loops_of(parent: int) -> list[int]:
    """The busy loops that were started for a process, whoever is their parent now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if str(parent).encode() in arguments and any(b"getppid" in word for word in arguments):
            found.append(int(folder.name))
    return found


def ended(loops: list[int]) -> bool:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in loops):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_is_passed_on_and_the_loops_end(status: int) -> None:
    source = f"import os, sys; print(os.getpid(), flush=True); sys.exit({status})"
    done = subprocess.run([*BESIDE, "2", "--", sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ended(loops_of(int(done.stdout)))


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_loops_run_until_the_command_ends(number: signal.Signals | None) -> None:
    with subprocess.Popen(
        [*BESIDE, "3", "--", *WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        loops = loops_of(process.pid)
        assert len(loops) == 3
        assert not any(
            Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z" for pid in loops
        )
        if number is None:
            process.stdin.write(b"\n")
            process.stdin.close()
        else:
            process.send_signal(number)
        process.wait(timeout=120)
    assert process.returncode == (
        -number if number in (signal.SIGTERM, signal.SIGKILL) else process.returncode
    )
    assert (process.returncode == 0) == (number is None)
    assert ended(loops)


@pytest.mark.parametrize(
    "words", [[], ["6"], ["six", "--", "true"], ["6", "true"], ["1", "--", "no such program"]]
)
def test_what_it_cannot_run_is_said(words: list[str]) -> None:
    done = subprocess.run([*BESIDE, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "COUNT" in done.stderr or "no such program: No such file" in done.stderr
