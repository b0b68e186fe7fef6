"""Fifty installed plugins: listing them costs little, and commands that do not list them do not notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_core.testing import environment
from lightx2v_core.testing.dists import write_dist

COUNT = 50
MODULE = """
from lightx2v_core.api import SchedulerSpec, hookimpl

def _build(options, ctx):
    raise AssertionError("nobody asked for it")

@hookimpl
def lightx2v_schedulers():
    return [SchedulerSpec(name="rule{number}", summary="a rule", build=_build)]
"""
#: processor seconds, so that other work on the machine does not count
MEASURE = (
    "import sys, time\n"
    "from lightx2v_core.cli import main\n"
    "try: main(sys.argv[1:])\n"
    "except SystemExit: pass\n"
    "print(time.process_time(), len([m for m in sys.modules if m.startswith('many_')]), file=sys.stderr)"
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(COUNT):
        write_dist(
            folder,
            f"lightx2v-many{number}",
            modules={f"many_{number}.py": MODULE.replace("{number}", str(number))},
            plugins={f"many{number}": f"many_{number}"},
        )
    return folder


def measured(*arguments: str, folders: tuple[Path, ...]) -> tuple[float, int, str]:
    """Processor seconds of a command (the least of some, since other work can only add), the synthetic modules it
    imported, and what it printed."""
    runs = []
    for _ in range(7):
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            env=environment(*folders), capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds, modules = result.stderr.split()[-2:]
        runs.append((float(seconds), int(modules), result.stdout))
    return min(seconds for seconds, _, _ in runs), runs[-1][1], runs[-1][2]


@pytest.mark.load
@pytest.mark.alone
def test_fifty_plugins_add_less_than_a_tenth_of_a_second(many: Path) -> None:
    measured("plugins", folders=(many,))  # writes the compiled modules
    few, _, _ = measured("plugins", folders=())
    seconds, modules, out = measured("plugins", folders=(many,))
    assert modules == COUNT
    assert all(f"many{number} " in out for number in range(COUNT))
    assert seconds - few < 0.1


@pytest.mark.load
def test_help_does_not_look_at_them(many: Path) -> None:
    few, _, _ = measured("--help", folders=())
    seconds, modules, _ = measured("--help", folders=(many,))
    assert modules == 0
    assert seconds - few < 0.02
