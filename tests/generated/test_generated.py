"""What ``lightx2v-core plugins new`` writes, installed and put to its own tests. Run by ``tox -e new``, which has the
tools that a plugin author has."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lightx2v_core
import lightx2v_devkit
from lightx2v_core import __version__
from lightx2v_core.api import KINDS
from lightx2v_devkit.scaffold.composition import Wish, composed
from lightx2v_devkit.scaffold.creation import admitting, create
from lightx2v_devkit.scaffold.identity import Identity, kinds_from

#: of one letter, and of as many as there may be
SHORT, LONG = "q", "abcdefghij-klmnopqrst-uvwxyz-1"


def run(
    *words: object, cwd: Path, status: int = 0, python: Path | str = sys.executable, **variables: str
) -> str:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LIGHTX2V_", "PYTHONPATH"))
    }
    done = subprocess.run(
        [str(python), "-m", *map(str, words)],
        cwd=cwd, env={**kept, "OMP_NUM_THREADS": "1", **variables}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, f"{words}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution of each kind alone, and one of all kinds, as the command writes them."""
    root = tmp_path_factory.mktemp("generated")
    for kind in KINDS:
        name = f"my-{kind.replace('_', '-')}"
        run("lightx2v_core", "plugins", "new", name, "--kind", kind, "--output", kind, cwd=root)
    words = [word for kind in KINDS for word in ("--kind", kind)]
    run("lightx2v_core", "plugins", "new", "my-all", *words, "--license", "MIT", "--output", "all", cwd=root)
    return root


@pytest.fixture(scope="module")
def python(root: Path) -> Path:
    """An environment with those of one kind, installed as their authors install them."""
    venv.EnvBuilder(with_pip=False).create(root / "env")
    (packages,) = root.glob("env/lib/python3*/site-packages")
    # core and devkit are these, however they are installed; third parties come from the environment of the tests
    packages_here = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    ours = [str(Path(package.__file__).parents[1]) for package in (lightx2v_core, lightx2v_devkit)]
    shared = [*ours, *packages_here]
    (packages / "shared.pth").write_text("\n".join(shared), encoding="utf-8")
    python = root / "env" / "bin" / "python"
    editable = [word for kind in KINDS for word in ("-e", f"./{kind}")]
    run("pip", "install", "-q", "--no-deps", "--no-build-isolation", *editable, cwd=root, python=python)
    return python


def test_everything_is_listed(python: Path, root: Path) -> None:
    out = run("lightx2v_core", "plugins", cwd=root, python=python)
    rows = {line.split()[0]: line for line in out.splitlines()}
    for kind in KINDS:
        name = f"my-{kind.replace('_', '-')}"
        assert f"{kind} {name}" in rows[name].partition("loaded")[2]


def test_there_is_nothing_to_say_of_them(python: Path, root: Path) -> None:
    names = ",".join(f"my-{kind.replace('_', '-')}" for kind in KINDS)
    out = run("lightx2v_core", "plugins", "--only-plugins", names, "check", cwd=root, python=python)
    assert out.endswith(", no problems, no warnings\n"), out
    # its suite takes what the plugin's own module of contracts says
    out = run("lightx2v_core", "plugins", "check", "my-weight-loader", "--strict", cwd=root, python=python)
    assert "weight_loader my-weight-loader: " in out
    assert out.endswith("my-weight-loader, no problems, no warnings\n"), out


def test_they_pass_their_own_tests(python: Path, root: Path) -> None:
    """In one process, with the settings of one of them, which are those of all. The checkpoint comes with a copy of the
    model, and both would know its files: they take turns."""
    settings = {(root / kind / "pyproject.toml").read_text().partition("[tool.pytest")[2] for kind in KINDS}
    assert len(settings) == 1
    passed: Counter[str] = Counter()
    for folders, off in (
        ([f"{kind}/tests" for kind in KINDS if kind != "checkpoint"], "my-checkpoint"),
        (["checkpoint/tests"], "my-model"),
    ):
        report = root / "report.xml"
        words = [
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            "-c",
            "model/pyproject.toml",
        ]
        run(*words, *folders, cwd=root, python=python, LIGHTX2V_DISABLE_PLUGINS=off)
        passed += Counter(
            case.attrib["classname"].partition("test_")[2].partition(".")[0]
            for case in ElementTree.parse(report).iter("testcase")
            if not list(case)
        )
    assert set(passed) == set(KINDS)
    assert min(passed.values()) > 5


@pytest.mark.parametrize("folder", [*KINDS, "all"])
def test_its_types_and_style(folder: str, python: Path, root: Path) -> None:
    run("ruff", "check", "--no-cache", ".", cwd=root / folder)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=root / folder)
    run("mypy", "--cache-dir", root / "mypy", cwd=root / folder, python=python)


def combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    for size in (1, 2, len(KINDS)):  # what belongs to two kinds shows in their pair
        for words in itertools.combinations(KINDS, size):
            kinds = kinds_from(words)
            yield SHORT, kinds
            if size != 2:
                yield LONG, kinds


def test_style_of_every_combination(tmp_path: Path) -> None:
    """Any combination of kinds, with short and long names."""
    for number, (name, kinds) in enumerate(combinations()):
        wish = Wish(identity=Identity(name=name), kinds=kinds, year=2026, admits=admitting(__version__))
        create(tmp_path / f"d{number}", composed(wish))
    run("ruff", "check", "--no-cache", ".", cwd=tmp_path)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)


def test_it_builds(root: Path, tmp_path: Path) -> None:
    """A wheel of all kinds, with its licence and the mark of its types."""
    shutil.copytree(root / "all", tmp_path / "all")
    run("build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist", cwd=tmp_path / "all")
    (wheel,) = (tmp_path / "dist").glob("lightx2v_my_all-0.1.0-*.whl")
    names = run("zipfile", "-l", wheel, cwd=tmp_path)
    assert "lightx2v_my_all/py.typed" in names
    assert "licenses/LICENSE" in names
    assert "tests/" not in names
