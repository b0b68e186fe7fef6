"""Plugins of earlier versions keep working: a wheel as it was published loads, runs and passes its contract suites.

``tests/compatibility`` holds the wheel of the example plugin of 0.1.0. It may use old names of the interface
(``lightx2v_core.spec.renamed``), and is told so in one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lightx2v_core.spec.renamed import UNTIL

WHEEL = Path(__file__).with_name("compatibility") / "lightx2v_example-0.1.0-py3-none-any.whl"
SUITES = """
from lightx2v_core.testing.contracts import AttentionContract, ModelContract, SchedulerContract


class TestChunked(AttentionContract):
    use = "chunked"


class TestAdams2(SchedulerContract):
    use = "adams2"


class TestPebble(ModelContract):
    use = "pebble"
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin of 0.1.0 installed in it, as pip would."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return folder


def python(old: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(old), "LIGHTX2V_PLUGINS": "example"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, cwd=cwd)


def test_it_loads(old: Path) -> None:
    done = python(old, "-m", "lightx2v_core", "plugins", "--json")
    assert done.returncode == 0, done.stderr
    (example,) = (plugin for plugin in json.loads(done.stdout) if plugin["name"] == "example")
    assert example["state"] == "loaded"
    assert example["version"] == "0.1.0"


def test_it_runs_and_what_is_old_is_said(old: Path, tmp_path: Path) -> None:
    model, video = tmp_path / "pebble", tmp_path / "pebble.mp4"
    write = (
        "import pathlib, sys, lightx2v_example.tiny as tiny; tiny.write_tiny(pathlib.Path(sys.argv[1]), 0)"
    )
    written = python(old, "-c", write, str(model))
    assert written.returncode == 0, written.stderr
    done = python(
        old, "-m", "lightx2v_core", "run", "--model-path", str(model), "--prompt", "a pebble", "--size", "32x48",
        "--frames", "3", "--steps", "2", "--seed", "1", "--scheduler", "adams2", "--attention", "chunked",
        "--output", str(video),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert video.stat().st_size > 0
    assert (
        "warning: plugin example (lightx2v-example 0.1.0) uses ModelSpec.recognise, which is called recognize now "
        f"(the old name goes in lightx2v-core {UNTIL})"
    ) in done.stderr


def test_it_passes_its_contract_suites(old: Path, tmp_path: Path) -> None:
    """With warnings as errors, as its own configuration has them."""
    (tmp_path / "test_contracts.py").write_text(SUITES, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings =\n    error\n"
        "    ignore:Failed to initialize NumPy:UserWarning\n",
        encoding="utf-8",
    )
    done = python(old, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini"), str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
