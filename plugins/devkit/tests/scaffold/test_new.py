"""``lightx2v-core plugins new``: names, files for each kind, and atomic creation.

tests/generated (``tox -e new``) checks that new distributions install and pass their own tests.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core import __version__
from lightx2v_core.api import KINDS, OutputError, PluginError, RequestError
from lightx2v_core.testing import environment
from lightx2v_devkit.scaffold.composition import LICENSES, Wish, composed
from lightx2v_devkit.scaffold.creation import admitting, create
from lightx2v_devkit.scaffold.identity import Identity, identity, kinds_from

#: what belongs to two kinds shows in their pair
COMBINATIONS = sorted(
    {kinds_from(words) for size in (1, 2, len(KINDS)) for words in itertools.combinations(KINDS, size)},
    key=len,
)


def wish(kinds: tuple[str, ...], name: str = "q", **more: Any) -> Wish:
    return Wish(identity=Identity(name=name), kinds=kinds, year=2026, admits=admitting(__version__), **more)


def texts(wanted: Wish) -> dict[str, str]:
    """The files but for weights."""
    return {
        path: data.decode() for path, data in composed(wanted).items() if not path.endswith(".safetensors")
    }


def core(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lightx2v_core", "plugins", *map(str, arguments)],
        cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, ...], dict[str, str]]:
    """The files of every combination of kinds."""
    return {kinds: texts(wish(kinds)) for kinds in COMBINATIONS}


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_combination_is_complete_and_has_nothing_else(everything: Any) -> None:
    """Its modules import each other and nothing that is not there, and each is imported by another one or is a test."""
    for kinds, contents in everything.items():
        assert {f"tests/test_{kind}.py" for kind in kinds} == {p for p in contents if p.startswith("tests/")}
        modules = {
            path.removeprefix("src/").removesuffix(".py").replace("/", "."): text
            for path, text in contents.items()
            if path.endswith(".py")
        }
        wanted = {name for text in modules.values() for name in imported(text)}
        ours = {name for name in wanted if name.startswith("lightx2v_q.")}
        assert ours <= set(modules), kinds
        there = {name for name in modules if name.startswith("lightx2v_q.")}
        assert there - ours == {"lightx2v_q.plugin", "lightx2v_q.__init__"} - ours, kinds
        foreign = {name for name in wanted if name.startswith("lightx2v_core")}
        public = {
            "lightx2v_core",
            "lightx2v_core.api",
            "lightx2v_core.testing.contracts",
            "lightx2v_core.testing.sources",
        }
        assert foreign <= public, kinds


def test_hooks_are_those_of_the_kinds(everything: Any) -> None:
    for kinds, contents in everything.items():
        functions = [
            n.name
            for n in ast.parse(contents["src/lightx2v_q/plugin.py"]).body
            if isinstance(n, ast.FunctionDef)
        ]
        assert [name for name in functions if not name.startswith("_")] == [KINDS[kind][0] for kind in kinds]


def test_requirements_are_what_is_imported(everything: Any) -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    for kinds, contents in everything.items():
        project = tomllib.loads(contents["pyproject.toml"])["project"]
        shipped = {
            name.partition(".")[0]
            for path, text in contents.items()
            if path.startswith("src/") and path.endswith(".py") and not path.endswith("contracts.py")
            for name in imported(text)
        } - {"__future__", "lightx2v_q", "lightx2v_core", *sys.stdlib_module_names}
        needs = {need.partition(">")[0] for need in project["dependencies"]}
        assert needs >= shipped | {"lightx2v-core"}, kinds
        assert needs <= shipped | {"lightx2v-core", "torch"}, kinds  # a test may be what imports torch
        assert f"lightx2v-devkit{admitting(__version__)}" in project["optional-dependencies"]["dev"]
        assert ("numpy>=1.26" in project["optional-dependencies"]["dev"]) == ("weight_loader" in kinds)
        assert project["entry-points"] == {"lightx2v_core.plugins": {"q": "lightx2v_q.plugin"}}


def test_nothing_of_the_template_is_left(everything: Any) -> None:
    contents = everything[COMBINATIONS[-1]]
    for path in composed(wish(COMBINATIONS[-1])):
        assert "pebble" not in path.lower()
        assert "example" not in path.lower()
    for path, text in contents.items():
        assert "pebble" not in text.lower(), path
        assert "example" not in text.lower() or path == "LICENSE", path
    assert {"LICENSE", "README.md", "pyproject.toml", ".gitignore", ".github/workflows/tests.yml"} <= set(
        contents
    )
    assert "<!--" not in contents["README.md"]


@pytest.mark.parametrize("license_", LICENSES)
def test_licence_and_author(license_: str) -> None:
    contents = texts(wish(("command",), license=license_, author='Ann "A" Ng'))
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    project = tomllib.loads(contents["pyproject.toml"])["project"]
    assert (project["license"], project["authors"]) == (license_, [{"name": 'Ann "A" Ng'}])
    assert f"License: {license_}." in contents["README.md"]
    assert license_.split("-")[0] in contents["LICENSE"]
    assert ('Copyright (c) 2026 Ann "A" Ng' in contents["LICENSE"]) == (license_ == "MIT")


def test_the_licence_is_the_core_s_own_text() -> None:
    root = Path(__file__).resolve().parents[2]
    assert texts(wish(("command",)))["LICENSE"] == (root / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("version", "admits"),
    [
        ("0.1.0", ">=0.1,<0.2"), ("1.12.3", ">=1.12,<1.13"), ("0.2.0rc1", ">=0.2.0rc1,<0.3"),
        ("0.2.0.dev3", ">=0.2.0.dev3,<0.3"),
    ],
)  # fmt: skip
def test_pins(version: str, admits: str) -> None:
    from packaging.specifiers import SpecifierSet

    assert admitting(version) == admits
    assert SpecifierSet(admits).contains(version, prereleases=True)


@settings(deadline=None)  # the first example imports
@given(st.text(max_size=40) | st.from_regex(r"(lightx2v-)?[a-z][a-z0-9-]{0,29}", fullmatch=True))
def test_a_name_is_possible_or_refused_with_one_that_is(text: str) -> None:
    try:
        found = identity(text)
    except PluginError as exc:
        hint = str(exc).rpartition(" long")[2]
        if hint:  # the nearest possible name
            name = hint.removeprefix(": ").strip("'")
            assert identity(name).name == name
    else:
        assert found.package.isidentifier()
        assert found.distribution == f"lightx2v-{found.name}"
        assert text in (found.name, found.distribution)


def test_kinds_have_several_names() -> None:
    assert kinds_from(["attention", "LoRA", "loader", "schedulers"]) == (
        "weight_loader", "attention", "lora_applier", "scheduler",
    )  # fmt: skip
    for kind in KINDS:
        with_model = ("model", "checkpoint") if kind == "checkpoint" else (kind,)
        assert kinds_from([kind.replace("_", "-"), kind]) == with_model
    with pytest.raises(PluginError, match=r"unknown kind 'shceduler'; .*did you mean 'scheduler'"):
        kinds_from(["shceduler"])
    with pytest.raises(PluginError, match="missing kind of implementation"):
        kinds_from([])


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing was left behind"):
        create(tmp_path / "new", {"a": b"first", "a/b": b"cannot be"})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RequestError, match="is not a folder"):
        create(tmp_path / "no" / "new", {"a": b""})
    create(tmp_path / "new", {"a/b": b"text\n"})
    assert (tmp_path / "new" / "a" / "b").read_bytes() == b"text\n"
    with pytest.raises(RequestError, match="already exists"):
        create(tmp_path / "new", {"c": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "new").stat().st_mode == plain.stat().st_mode


KILLED = """
import os, signal, sys
from pathlib import Path
from lightx2v_devkit.scaffold import creation
count, folder = int(sys.argv[1]), Path(sys.argv[2])
written = 0
plain = Path.write_bytes
def write(path, data):
    global written
    if written == count:
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1
    return plain(path, data)
Path.write_bytes = write
def gone():
    os.kill(os.getpid(), signal.SIGKILL)
creation.create(folder, {"README.md": b"x", "src/acme/plugin.py": b"y", ".github/a.yml": b"z"}, gone)
"""


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_what_a_kill_leaves_goes_with_the_next_one(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    done = subprocess.run([sys.executable, "-c", KILLED, str(count), str(folder)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert folder.exists() == (count == 3)
    (left,) = tmp_path.glob(".*")
    create(tmp_path / "other", {"a/b.py": b"x"})
    assert not left.exists()
    assert (tmp_path / "other/a/b.py").read_bytes() == b"x"
    assert oct((tmp_path / "other").stat().st_mode)[-3:] == oct(0o777 & ~_umask())[-3:]
    assert {path.name for path in tmp_path.iterdir()} == ({"other", "acme"} if count == 3 else {"other"})


def test_what_is_of_others_or_alive_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = tmp_path / f".acme.new-{dead.pid}"
    (mine / "tree").mkdir(parents=True)
    mine.chmod(0o700)
    (mine / "files.json").write_text('["a.py", "../../precious", "/precious"]')
    (mine / "tree" / "a.py").write_text("ours")
    (mine / "tree" / "notes.txt").write_text("somebody's")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / f".link.new-{dead.pid}").symlink_to(tmp_path)
    for name in (f".acme.new-{os.getppid()}", ".acme.new-", ".acme-x1y2", f".open.new-{dead.pid}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "files.json").write_text("[]")
    (tmp_path / f".open.new-{dead.pid}").chmod(0o755)
    before = {str(path) for path in tmp_path.rglob("*")}
    create(tmp_path / "other", {"b.py": b"x"})
    after = {str(path) for path in tmp_path.rglob("*") if "other" not in path.parts}
    assert before - after == {str(mine / "files.json"), str(mine / "tree" / "a.py")}
    assert (tmp_path / "precious").read_text() == "precious"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_the_command(tmp_path: Path) -> None:
    done = core("new", "my-kernel", "--kind", "attention", "--kind", "command", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lightx2v-my-kernel: lightx2v-my-kernel with attention, command, ")
    assert "lightx2v-core plugins check my-kernel --strict" in done.stdout
    folder = tmp_path / "lightx2v-my-kernel"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    again = core("new", "my-kernel", "--kind", "attention", cwd=tmp_path)
    assert again.returncode == 2
    assert "already exists" in again.stderr
    done = core(
        "new",
        "lightx2v-my-kernel",
        "--kind",
        "command",
        "--kind",
        "attention",
        "--output",
        "b",
        "--json",
        cwd=tmp_path,
    )
    made = json.loads(done.stdout)
    assert made == {
        "plugin": "my-kernel", "distribution": "lightx2v-my-kernel", "kinds": ["attention", "command"], "folder": "b",
        "files": files,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("My_Kernel", "--kind", "attention"), "at most 30 characters long: 'my-kernel'"),
        (("x", "--kind", "atention"), "did you mean 'attention'?"),
        (("x",), "missing kind of implementation: --kind weight_loader|"),
        (("core", "--kind", "model"), "'core' is a reserved name"),
        (("xformers", "--kind", "model"), "lightx2v-xformers is a plugin of this project"),
        (("sdpa", "--kind", "attention"), "attention 'sdpa' exists"),
        (("plan", "--kind", "command"), "command 'plan' exists"),
        (("x", "--kind", "model", "--output", "."), "'.' already exists"),
        (("x", "--kind", "model", "--output", "none/x"), "is not a folder, so 'x' cannot be created in it"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = core("new", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_of_installed_plugins_are_taken(fake_dist: Any, tmp_path: Path) -> None:
    folder = fake_dist("lightx2v-zeta", modules={"zeta_plugin.py": ""}, plugins={"zeta-x": "zeta_plugin"})
    for name in ("zeta", "zeta-x"):
        done = core("new", name, "--kind", "command", cwd=tmp_path, PYTHONPATH=str(folder))
        assert done.returncode == 2
        assert "the plugin zeta-x (lightx2v-zeta) is already installed" in done.stderr
