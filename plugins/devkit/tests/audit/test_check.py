"""``lightx2v-core plugins check`` as it is typed, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightx2v_core.cli import main
from lightx2v_core.testing.fixtures import FakeDist

ACME = """
from lightx2v_core.api import AttentionSpec, CommandSpec, hookimpl


def _load():
    import click

    return click.Command("acme-ui", callback=lambda: click.echo("acme-ui ran"))


@hookimpl
def lightx2v_attention_backends():
    yield AttentionSpec(name="acme", summary="Acme's kernel", build=print, priority=7)


@hookimpl
def lightx2v_commands():
    return [CommandSpec(name="acme-ui", summary="Open a page.", load=_load)]
"""


@pytest.fixture
def acme(fake_dist: FakeDist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTX2V_PLUGINS", raising=False)
    monkeypatch.delenv("LIGHTX2V_DISABLE_PLUGINS", raising=False)
    fake_dist("acme-dist", modules={"acme_plugin.py": ACME}, plugins={"acme": "acme_plugin"}, version="1.5")


@pytest.fixture
def broken(fake_dist: FakeDist) -> None:
    source = "import acme_lacks_this"
    fake_dist("bad-dist", modules={"bad_plugin.py": source}, plugins={"bad": "bad_plugin"})


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in this process: (status, stdout, stderr)."""

    def run(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


@pytest.mark.usefixtures("acme")
def test_check_without_problems(cli: Any) -> None:
    status, out, _ = cli("plugins", "--only-plugins", "acme", "check")
    assert status == 0
    assert "plugins, no problems, " in out.splitlines()[-1]
    found = json.loads(cli("plugins", "--only-plugins", "acme", "check", "--json")[1])
    assert found["problems"] == []
    assert found["warnings"], "its metadata has no licence, among others"


@pytest.mark.usefixtures("acme", "broken")
def test_check_with_problems(cli: Any, fake_dist: FakeDist) -> None:
    fake_dist("acme-2", modules={"acme_two.py": ACME}, plugins={"two": "acme_two"})
    some = ("plugins", "--only-plugins", "acme,bad,two")
    status, out, _ = cli(*some, "check")
    assert status == 1
    lines = [line for line in out.splitlines()[:-1] if not line.startswith("warning: ")]
    assert lines[0].startswith("plugin bad (bad-dist 1.0) is broken and was skipped: ModuleNotFoundError")
    assert (
        "attention 'acme' comes from more than one plugin: acme/acme, two/acme; each needs its qualified name"
        in lines
    )
    assert any(line.startswith("command 'acme-ui' comes from more than one plugin: acme/") for line in lines)
    status, out, _ = cli(*some, "check", "--json")
    assert status == 1
    assert json.loads(out)["problems"] == lines


@pytest.mark.usefixtures("acme")
def test_it_is_there_whatever_the_environment_lists_for_runs(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTX2V_PLUGINS", "acme")
    status, out, _ = cli("plugins", "check", "acme")
    assert (status, out.splitlines()[-1].startswith("acme, no problems, ")) == (0, True)
    monkeypatch.setenv("LIGHTX2V_DISABLE_PLUGINS", "devkit")
    status, _, err = cli("plugins", "check", "acme")
    assert status == 2
    assert "command 'plugins check' is provided by lightx2v-devkit: pip install " in err
    assert "not loaded: devkit (disabled: excluded by name)" in err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('name="run"', "command 'run' belongs to the core; that of acme is 'acme/run'"),
        ('name="list", parent="plugins"', "command 'plugins list' belongs to the core; that of acme is 'acme/list'"),
        ('name="start", parent="server"', "acme: command start: unreachable, since 'server' accepts no subcommands"),
        ('name="check", parent="plugins"', "command 'plugins check' comes from more than one plugin: acme/check, dev"),
        ('name="list"', ""),
    ],
)  # fmt: skip
def test_names_of_commands(cli: Any, fake_dist: FakeDist, fields: str, words: str) -> None:
    """Those of different parents are different names."""
    source = ACME.replace('name="acme-ui"', fields)
    fake_dist("acme-dist", modules={"acme_plugin.py": source}, plugins={"acme": "acme_plugin"})
    status, out, _ = cli("plugins", "--only-plugins", "acme,devkit", "check", "acme", "--json")
    problems = json.loads(out)["problems"]
    assert status == (1 if words else 0)
    assert [problem.startswith(words) for problem in problems] == ([True] if words else [])
