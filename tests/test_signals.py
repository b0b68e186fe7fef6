"""Interrupts: tests reach what they start however they were started themselves, and the exit status is that of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_core.testing import environment, write_dist

REPOSITORY = Path(__file__).resolve().parent.parent
SUITES = ["tests", "plugins/convert/tests", "plugins/gradio/tests", "plugins/offload/tests"]

#: a test of a suite, which starts a process that interrupts itself
TEST = """
import signal, subprocess, sys

def test_a_process_is_interrupted():
    code = "import signal, time; signal.raise_signal(signal.SIG@); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIG@
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def ignoring(number: str, line: list[str]) -> list[str]:
    """Started as by a script's ``&`` or by ``nohup``."""
    return ["sh", "-c", f'trap "" {number}; exec "$@"', "sh", *line]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("number", ["INT", "HUP"])
def test_what_tests_start_can_be_interrupted(suite: str, number: str, tmp_path: Path) -> None:
    """With the ``pytest_configure`` of each suite that interrupts something."""
    conftest = (REPOSITORY / suite / "conftest.py").read_text(encoding="utf-8")
    start = conftest.index("def pytest_configure")
    (tmp_path / "conftest.py").write_text(conftest[start:].partition("\n\n\n")[0], encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TEST.replace("@", number), encoding="utf-8")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        ignoring(number, line), cwd=tmp_path, env=environment(REPOSITORY), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_needed(tmp_path: Path) -> None:
    """Without it, child processes ignore the signal too."""
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    inner = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    assert subprocess.run(ignoring("INT", [sys.executable, "-c", inner])).returncode == 1


@pytest.mark.parametrize("call", ["exec", "eval"])
@pytest.mark.parametrize("number", ["INT", "TERM", "HUP"])
def test_an_interrupt_in_source_given_as_text_has_the_exit_status_of_interrupts(
    call: str, number: str, tmp_path: Path
) -> None:
    """Such as the methods of data classes, while a module is imported: ``python -m`` would end by SIGINT."""
    source = f"import signal\n{call}('[signal.raise_signal(signal.SIG{number}), sum(range(1000))]')\n"
    write_dist(tmp_path, "lightx2v-zeta", modules={"zeta_plugin.py": source}, plugins={"zeta": "zeta_plugin"})
    line = [sys.executable, "-m", "lightx2v_core", "plugins"]
    done = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted; nothing was left behind"), (
        done.stderr
    )
