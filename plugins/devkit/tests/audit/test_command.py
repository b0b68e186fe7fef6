"""``plugins check`` on the command line: exit statuses, and what ``plugins new`` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_core import __version__
from lightx2v_core.api import load_plugins
from lightx2v_core.testing import environment
from lightx2v_core.testing.fixtures import FakeDist
from lightx2v_devkit.audit.report import audit
from lightx2v_devkit.scaffold.composition import Wish, composed
from lightx2v_devkit.scaffold.creation import admitting, create
from lightx2v_devkit.scaffold.identity import Identity

from .zeta import ABOUT, EXACT, HEAD, RIGHT


def core(
    *arguments: str, folders: tuple[Path, ...] = (), program: str = ""
) -> subprocess.CompletedProcess[str]:
    main = f"import sys\n{program}\nfrom lightx2v_core.cli import main\nmain(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", main, "plugins", "--only-plugins", "zeta", *arguments],
        env=environment(*folders), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def warned(fake_dist: FakeDist) -> Path:
    """A plugin with one warning, whose kernel is right."""
    return fake_dist(
        "lightx2v-zeta",
        modules={"zeta.py": HEAD + EXACT.replace("SCALE", "scale") + RIGHT},
        plugins={"zeta": "zeta"},
        requires=["lightx2v-core"],
        about=ABOUT,
    )


def test_warnings_count_when_it_is_strict(warned: Path) -> None:
    done = core("check", "zeta", folders=(warned,))
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first.startswith("warning: zeta: its requirement 'lightx2v-core' has no lower and no upper limit")
    assert last == "zeta, no problems, 1 warning"
    done = core("check", "zeta", "--strict", folders=(warned,))
    assert done.returncode == 1
    assert "checks of its contract passed" in done.stdout
    done = core("check", "zeta", "--json", folders=(warned,))
    assert {key: len(texts) for key, texts in json.loads(done.stdout).items()} == {
        "problems": 0, "warnings": 1, "notes": 0,
    }  # fmt: skip


def test_without_pytest_it_says_what_was_not_checked(warned: Path) -> None:
    gone = "sys.modules['pytest'] = None"
    assert core("check", "zeta", folders=(warned,), program=gone).returncode == 0
    done = core("check", "zeta", "--strict", folders=(warned,), program=gone)
    assert done.returncode == 1
    assert (
        "warning: zeta: its contract suites were not run: pytest is missing; pip install pytest"
        in done.stdout
    )


def test_an_unknown_plugin_is_a_wrong_request(warned: Path) -> None:
    done = core("check", "zetta", folders=(warned,))
    assert done.returncode == 2
    assert "no plugin 'zetta'" in done.stderr
    assert "did you mean 'zeta'?" in done.stderr


@pytest.mark.parametrize("kind", ["attention", "command"])
def test_what_new_writes_is_right(kind: str, fake_dist: FakeDist, tmp_path: Path) -> None:
    """As it is written, contracts included; all kinds are installed by tests/generated."""
    wish = Wish(identity=Identity(name="zeta"), kinds=(kind,), year=2026, admits=admitting(__version__))
    create(tmp_path / "new", composed(wish))
    package = tmp_path / "new" / "src" / "lightx2v_zeta"
    fake_dist(
        "lightx2v-zeta",
        modules={f"lightx2v_zeta/{file.name}": file.read_text() for file in package.glob("*.py")},
        plugins={"zeta": "lightx2v_zeta.plugin"},
        requires=[f"lightx2v-core{wish.admits}"],
        about=ABOUT,
    )
    found = audit(load_plugins(), name="zeta", contracts=True)
    assert [finding.level for finding in found] == ["note"], found
