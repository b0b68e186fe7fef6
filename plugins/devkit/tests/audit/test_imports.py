"""The effects of importing a plugin are reported: threads, changes, output, and imports that do not return."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lightx2v_core.testing import environment, write_dist
from lightx2v_devkit.audit.import_checks import stuck
from lightx2v_devkit.distributions import GROUP

GOOD = """
from lightx2v_core.api import AttentionSpec, hookimpl


@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="fine", summary="x", build=print)]
"""
#: what keeps a process alive -> the source that does it, and what names it
HELD = {
    "thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), name='forever').start()\n",
        "forever",
    ),
    "pool": (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1, 'pool-of-mine')\n"
        "pool.submit(time.sleep, 1e6)\n",
        "pool-of-mine_0",
    ),
    "atexit": ("import atexit, time\natexit.register(time.sleep, 1e6)\n", "time.sleep"),
}


def core(*arguments: str, env: dict[str, str], status: int = 0) -> subprocess.CompletedProcess[str]:
    """``lightx2v-core`` in a process of its own, which ends with this status and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *arguments],
        env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.load
@pytest.mark.parametrize("held", HELD)
def test_what_keeps_a_process_alive_is_named(held: str, tmp_path: Path) -> None:
    source, name = HELD[held]
    modules = {"held_plugin.py": source + GOOD}
    write_dist(tmp_path / "held", "held-dist", modules=modules, plugins={"held": "held_plugin"})
    env = environment(tmp_path / "held", LIGHTX2V_PLUGINS="held")
    report = json.loads(core("plugins", "check", "held", "--json", env=env, status=1).stdout)
    (problem,) = report["problems"]
    assert problem.startswith("held: importing held_plugin ")
    assert name in problem


def test_what_importing_changes_and_prints_is_named(tmp_path: Path) -> None:
    source = (
        "import builtins, os, signal, sys, warnings\nprint('hello\\nthere')\nos.environ['MINE'] = '1'\n"
        "warnings.simplefilter('error')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsys.exit = print\n"
        "builtins.sorted = list\nsys.stdout.close()\n"
    )
    write_dist(
        tmp_path / "odd", "odd-dist", modules={"odd_plugin.py": source + GOOD}, plugins={"odd": "odd_plugin"}
    )
    env = environment(tmp_path / "odd", LIGHTX2V_PLUGINS="odd")
    found = json.loads(core("plugins", "check", "odd", "--json", env=env).stdout)
    (changes,) = [text for text in found["warnings"] if "all plugins share" in text]
    for what in (
        "warnings.filters",
        "the handler of SIGTERM",
        "builtins.sorted",
        "sys.exit",
    ):
        assert what in changes
    if os.name == "posix":
        json.loads(core("plugins", "--json", env=env).stdout)


@pytest.mark.load
@pytest.mark.parametrize(("code", "words"), [
    ("import os\nos._exit(0)", "ends the process with status 0"),
    ("import os\nos.abort()", "ends the process by signal 6"),
    ("import time\nwhile True:\n    time.sleep(1)", "does not return"),
])  # fmt: skip
@pytest.mark.slow
def test_imports_that_do_not_end_or_end_the_process_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    for name, source in (("held", code), ("good", GOOD)):
        folder = write_dist(
            tmp_path / name,
            f"{name}-dist",
            modules={f"{name}_plugin.py": source},
            plugins={name: f"{name}_plugin"},
        )
        monkeypatch.syspath_prepend(str(folder))
    entries = [entry for entry in metadata.entry_points(group=GROUP) if entry.name in ("held", "good")]
    assert len(entries) == 2
    found = stuck(entries, seconds=30)
    assert found == {"held": f"importing held_plugin {words}"}
