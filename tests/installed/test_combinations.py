"""The core alone, with each plugin alone, and with all: from built wheels, each in an environment of its own.

Run by ``tox -e wheels`` after the distributions were taken out of its environment again: an environment here sees the
third-party packages of that one, and of ours only the wheels that are installed into it.
"""

from __future__ import annotations

import os
import re
import site
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

DISTS = os.environ.get("LIGHTX2V_TEST_DISTS", "")
#: what each combination installs beside the core; a plugin brings the ones that it builds on
NEEDS = {"mini": ("wan21", "wan22"), "wan22": ("wan21",)}


def plugin_names() -> list[str]:
    """The plugins whose wheels were built, by their entry points."""
    found = [re.match(r"lightx2v_(\w+?)-\d", file.name) for file in Path(DISTS or ".").glob("*.whl")]
    return sorted(match[1] for match in found if match and match[1] != "core")


def whole(plugin: str) -> tuple[str, ...]:
    return (*NEEDS.get(plugin, ()), plugin)


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not DISTS:
        pytest.skip(
            "LIGHTX2V_TEST_DISTS does not name the folder of the built distributions; use tox -e wheels"
        )


def environment(folder: Path, plugins: Sequence[str]) -> Path:
    """A new environment with the core, these plugins and what checks them; its Python."""
    venv.EnvBuilder(with_pip=False).create(folder)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python3*/site-packages")
    third_party = [*site.getsitepackages(), *filter(None, [os.environ.get("LIGHTX2V_TEST_SITE")])]
    (packages / "third_party.pth").write_text("\n".join(third_party), encoding="utf-8")
    names = ["lightx2v-core", *(f"lightx2v-{name.replace('_', '-')}" for name in {*plugins, "devkit"})]
    run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--find-links",
        DISTS,
        *names,
    )
    return python


def run(python: Path, *words: object, status: int = 0, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(python), *map(str, words)], capture_output=True, text=True, timeout=600, cwd=cwd
    )
    assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def check_contracts(python: Path, plugin: str) -> None:
    """The plugin check reports only passed contracts."""
    out = run(python, "-m", "lightx2v_core", "plugins", "check", plugin.replace("_", "-"), "--strict")
    assert "checks of its contract passed" in out
    assert out.endswith(", no problems, no warnings\n")


def check_runs(python: Path, folder: Path, models: Sequence[str]) -> None:
    """The tiny checkpoint of each model is planned and run."""
    for model in models:
        place = folder / model
        run(python, "-m", "lightx2v_core.testing", "tiny", place, "--model", model)
        out = run(python, "-m", "lightx2v_core", "inspect", place)
        assert "can run" in out
        run(python, "-m", "lightx2v_core", "plan", "--model-path", place, "--task", "t2v")
        run(
            python, "-m", "lightx2v_core", "run", "--model-path", place, "--task", "t2v", "--prompt", "a fox", "--size",
            "32x32" if model != "wan2.2-ti2v" else "64x64", "--frames", 5, "--steps", 2, "--scheduler", "euler",
            "--output", folder / f"{model}.mp4",
        )  # fmt: skip
        assert (folder / f"{model}.mp4").stat().st_size > 100


MODELS = {"example": ["pebble"], "wan21": ["wan2.1"], "wan22": ["wan2.2-a14b", "wan2.2-ti2v"]}


def test_the_core_alone(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", ())
    out = run(python, "-m", "lightx2v_core", "plugins")
    assert [line.split()[0] for line in out.splitlines()] == ["core", "devkit"]
    check_contracts(python, "core")
    out = run(python, "-m", "lightx2v_core", "plan", "--model-path", tmp_path, "--model", "wan2.1", status=2)
    assert "model 'wan2.1' is provided by lightx2v-wan21: pip install 'lightx2v-core[wan21]'" in out
    out = run(python, "-m", "lightx2v_core", "download", "Wan-AI/Wan2.1-T2V-1.3B", status=2)
    assert "command 'download' is provided by lightx2v-hub: pip install 'lightx2v-core[hub]'" in out


@pytest.mark.parametrize("plugin", plugin_names())
def test_one_plugin(tmp_path: Path, plugin: str) -> None:
    python = environment(tmp_path / "env", whole(plugin))
    out = run(python, "-m", "lightx2v_core", "plugins", "check")
    assert "broken" not in out
    check_contracts(python, plugin)
    check_runs(python, tmp_path, MODELS.get(plugin, []))


def test_downloads_beside_a_model(tmp_path: Path) -> None:
    python = environment(tmp_path / "env", ("hub",))
    assert "\n  download " in run(python, "-m", "lightx2v_core", "--help").partition("Plugin commands:")[2]
    out = run(python, "-m", "lightx2v_core", "download", "--list")
    assert out.startswith("no loaded plugin lists a repository")
    python = environment(tmp_path / "with-a-model", ("hub", "wan21"))
    assert "\nwan2.1-t2v-1.3b " in run(python, "-m", "lightx2v_core", "download", "--list")


def test_all_together(tmp_path: Path) -> None:
    plugins = plugin_names()
    python = environment(tmp_path / "env", plugins)
    out = run(python, "-m", "lightx2v_core", "plugins")
    assert all(f"\n{name.replace('_', '-')} " in out for name in plugins)
    check_runs(python, tmp_path, [model for name in plugins for model in MODELS.get(name, [])])
