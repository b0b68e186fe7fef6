"""``lightx2v-core plugins`` and the commands that plugins bring, as a user types them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from packaging.requirements import Requirement

from lightx2v_core import __version__
from lightx2v_core.cli import main
from lightx2v_core.testing.fixtures import FakeDist

ACME = """
from typing import Literal

from attrs import field, frozen

from lightx2v_core.api import AttentionSpec, CommandSpec, hookimpl


@frozen(kw_only=True)
class Options:
    #: how it is
    #: computed
    op: Literal["auto", "flash"] = "auto"
    tile: int = 64
    blocks: list[int] = field(factory=list, metadata={"help": "which ones"})


def _load(name):
    import click

    def load():
        if name == "acme-broken":
            raise ImportError("no gradio")
        return click.Command(name, callback=lambda: click.echo(f"{name} ran")) if name == "acme-ui" else name

    return load


@hookimpl
def lightx2v_attention_backends():
    yield AttentionSpec(name="acme", summary="Acme's kernel", config=Options, build=print, priority=7)
    yield AttentionSpec(name="acme-hopper", summary="Acme's other kernel", build=print, min_capability=(99, 0),
                        devices=frozenset({"cuda"}))


@hookimpl
def lightx2v_commands():
    return [
        CommandSpec(name="acme-ui", summary="Open a page.", load=_load("acme-ui")),
        CommandSpec(name="acme-broken", summary="Never works.", load=_load("acme-broken")),
        CommandSpec(name="acme-odd", summary="No command.", load=_load("acme-odd")),
        CommandSpec(name="acme-gpu", summary="Not here.", load=_load("acme-ui"), unusable=lambda c: ["no screen"]),
    ]
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


@pytest.mark.usefixtures("acme", "broken")
def test_the_list_shows_plugins_and_what_they_provide(cli: Any) -> None:
    status, out, err = cli("plugins")
    assert (status, err) == (0, "")
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()}
    assert rows["acme"].startswith("acme acme-dist 1.5 loaded attention acme, acme-hopper; command acme-ui")
    assert rows["core"].startswith(
        f"core lightx2v-core {__version__} loaded weight_loader safetensors, torch;"
    )
    assert out.splitlines()[-1] == "bad is broken: ModuleNotFoundError: No module named 'acme_lacks_this'"
    assert cli("plugins", "list") == (status, out, err)


@pytest.mark.usefixtures("acme")
def test_timings(cli: Any) -> None:
    _, out, _ = cli("plugins", "--timings")
    (row,) = [line for line in out.splitlines() if line.startswith("acme ")]
    assert " ms attention acme" in " ".join(row.split())


@pytest.mark.usefixtures("acme", "broken")
def test_requirements(cli: Any, fake_dist: FakeDist) -> None:
    """Lines that pip reads; what did not load is left out, and what came from elsewhere comes from there again."""
    commit = {
        "url": "https://example.org/far.git",
        "vcs_info": {"vcs": "git", "commit_id": "abc"},
        "subdirectory": "x",
    }
    far = {"far.py": ACME, "far-2.0.dist-info/direct_url.json": json.dumps(commit)}
    fake_dist("far", modules=far, plugins={"far": "far"}, version="2.0")
    wheel = {"url": "https://example.org/z.whl", "archive_info": {}}
    there = {"zwheel.py": ACME, "zwheel-3.0.dist-info/direct_url.json": json.dumps(wheel)}
    fake_dist("zwheel", modules=there, plugins={"zwheel": "zwheel"}, version="3.0")
    status, out, err = cli("plugins", "--only-plugins", "acme,bad,far,zwheel", "--requirements")
    assert (status, err) == (0, "")
    lines = [line.partition("  #")[0] for line in out.splitlines()]
    assert lines == [
        "acme-dist==1.5", "far @ git+https://example.org/far.git@abc#subdirectory=x", f"lightx2v-core=={__version__}",
        "zwheel @ https://example.org/z.whl",
    ]  # fmt: skip
    for line in lines:
        assert Requirement(line.partition("#")[0]).name
    found = json.loads(cli("plugins", "--only-plugins", "acme,bad,far,zwheel", "--requirements", "--json")[1])
    assert found == out.splitlines()


@pytest.mark.usefixtures("acme", "broken")
@pytest.mark.parametrize("arguments", [("--json",), ("--json", "list"), ("list", "--json")])
def test_the_list_as_json(cli: Any, arguments: tuple[str, ...]) -> None:
    status, out, err = cli("plugins", *arguments)
    assert (status, err, out.count("\n")) == (0, "", 1)
    listed = {plugin["name"]: plugin for plugin in json.loads(out)}
    acme = listed["acme"]
    assert acme.pop("seconds") > 0
    assert acme.pop("provides")[0] == {
        "kind": "attention",
        "name": "acme",
        "summary": "Acme's kernel",
        "priority": 7,
    }
    assert acme == {
        "name": "acme",
        "distribution": "acme-dist",
        "version": "1.5",
        "module": "acme_plugin",
        "state": "loaded",
        "reason": "",
    }
    assert listed["bad"]["state"] == "broken"


@pytest.mark.usefixtures("acme")
def test_show(cli: Any) -> None:
    status, out, _ = cli("plugins", "show", "acme")
    assert status == 0
    assert out.startswith("acme: acme-dist 1.5, acme_plugin, loaded\n")
    text = "\n".join(line.strip() for line in out.splitlines())
    assert "attention acme: Acme's kernel\nnot used, wrong on this machine: plugin acme: " in text
    assert (
        "op: Literal['auto', 'flash'] = 'auto'\nhow it is computed\ntile: int = 64\n"
        "blocks: list[int] = []\nwhich ones\n"
    ) in text
    assert "attention acme-hopper: Acme's other kernel\nnot usable here: " in text
    assert "command acme-gpu: Not here.\nnot usable here: no screen" in text
    assert cli("plugins", "show", "Acme_Dist")[1] == out


@pytest.mark.usefixtures("acme")
def test_show_as_json(cli: Any) -> None:
    status, out, _ = cli("plugins", "show", "acme", "--json")
    provides = {item["name"]: item for item in json.loads(out)["provides"]}
    assert status == 0
    assert provides["acme"]["unusable"] == []
    assert provides["acme"]["proof"]["state"] == "wrong"
    assert provides["acme-ui"]["proof"] is None
    assert provides["acme-gpu"]["unusable"] == ["no screen"]
    assert provides["acme"]["options"] == [
        {"name": "op", "type": "Literal['auto', 'flash']", "default": "'auto'", "help": "how it is computed"},
        {"name": "tile", "type": "int", "default": "64", "help": ""},
        {"name": "blocks", "type": "list[int]", "default": "[]", "help": "which ones"},
    ]
    assert provides["acme"]["schema"]["properties"]["op"] == {
        "description": "how it is computed", "enum": ["auto", "flash"], "default": "auto",
    }  # fmt: skip


@pytest.mark.usefixtures("broken")
def test_show_of_a_broken_plugin_has_the_traceback(cli: Any) -> None:
    status, out, _ = cli("plugins", "show", "bad")
    assert status == 0
    assert "Traceback (most recent call last)" in out
    assert "bad_plugin.py" in out


def test_show_of_an_unknown_plugin(cli: Any) -> None:
    status, out, err = cli("plugins", "show", "cor")
    assert (status, out) == (2, "")
    assert "no plugin 'cor'; installed: core" in err
    assert "did you mean 'core'?" in err


@pytest.mark.usefixtures("acme", "broken")
def test_switches(cli: Any) -> None:
    _, out, _ = cli("plugins", "--disable-plugin", "acme,bad", "--json")
    found = {plugin["name"]: plugin["state"] for plugin in json.loads(out)}
    assert (found["acme"], found["bad"]) == ("disabled", "disabled")
    _, out, _ = cli("plugins", "--disable-plugin", "acme", "--disable-plugin", "bad-dist", "--json")
    assert {plugin["name"]: plugin["state"] for plugin in json.loads(out)} == found
    _, out, _ = cli("plugins", "--only-plugins", "acme", "--json")
    assert [p["name"] for p in json.loads(out) if p["state"] == "loaded"] == ["core", "acme"]
    status, _, err = cli("plugins", "--disable-plugin", "acm")
    assert (status, "did you mean 'acme'?" in err) == (2, True)
    status, _, err = cli("plugins", "--strict-plugins")
    assert (status, "plugin bad (bad-dist 1.0) is broken" in err) == (2, True)


@pytest.mark.usefixtures("acme")
def test_commands_of_plugins(cli: Any) -> None:
    assert cli("acme-ui") == (0, "acme-ui ran\n", "")
    assert cli("acme/acme-ui") == (0, "acme-ui ran\n", "")
    assert cli("acme-broken")[::2] == (
        2,
        "error: command 'acme-broken' cannot be loaded: ImportError: no gradio\n",
    )
    assert cli("acme-odd")[::2] == (
        2,
        "error: command 'acme-odd' cannot be loaded: TypeError: returned 'acme-odd' (str), not Command\n",
    )
    status, _, err = cli("acme-gpu")
    assert status == 2
    assert "no usable command among 'acme-gpu':\n  acme/acme-gpu: no screen" in err


@pytest.mark.usefixtures("acme", "broken")
def test_a_command_costs_one_warning_for_each_plugin_left_out(cli: Any) -> None:
    status, out, err = cli("acme-ui")
    assert (status, out) == (0, "acme-ui ran\n")
    assert err.count("warning: plugin bad (bad-dist 1.0) is broken and was skipped") == err.count("\n") == 1


def test_the_core_keeps_its_own_commands(cli: Any, fake_dist: FakeDist) -> None:
    source = ACME.replace('name="acme-ui"', 'name="run"')
    fake_dist("thief", modules={"thief.py": source}, plugins={"thief": "thief"})
    status, out, _ = cli("run", "--help")
    assert status == 0
    assert "Generate a video." in out
    assert cli("thief/run")[1] == "acme-ui ran\n"


@pytest.mark.usefixtures("acme")
def test_an_unknown_command(cli: Any) -> None:
    status, _, err = cli("plugns")
    assert status == 2
    assert "no command 'plugns'; did you mean 'plugins'?" in err
    assert "no command 'acme-iu'; did you mean 'acme-ui'?" in cli("acme-iu")[2]


SUBCOMMANDS = (
    ACME
    + """
@hookimpl
def lightx2v_commands():
    return [
        CommandSpec(name="tidy", summary="Tidy up.", load=_load("acme-ui")),
        CommandSpec(name="tidy", parent="plugins", summary="Tidy plugins up.", load=_tidy),
        CommandSpec(name="list", parent="plugins", summary="Another list.", load=_tidy),
        CommandSpec(name="start", parent="server", summary="Start a server.", load=_tidy),
    ]


def _tidy():
    import click

    return click.Command("tidy", callback=lambda: click.echo("plugins are tidy"))
"""
)


@pytest.fixture
def subcommands(fake_dist: FakeDist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTX2V_PLUGINS", raising=False)
    monkeypatch.delenv("LIGHTX2V_DISABLE_PLUGINS", raising=False)
    fake_dist("acme-dist", modules={"acme_plugin.py": SUBCOMMANDS}, plugins={"acme": "acme_plugin"})


@pytest.mark.usefixtures("subcommands")
def test_a_plugin_brings_a_subcommand_of_plugins(cli: Any) -> None:
    assert cli("plugins", "tidy") == (0, "plugins are tidy\n", "")
    assert cli("plugins", "acme/tidy") == (0, "plugins are tidy\n", "")
    assert cli("tidy") == (0, "acme-ui ran\n", "")
    status, out, err = cli("plugins", "list")
    assert (status, err) == (0, "")
    assert "command tidy, plugins tidy, plugins list, server start" in out
    (acme,) = (plugin for plugin in json.loads(cli("plugins", "--json")[1]) if plugin["name"] == "acme")
    parents = [(one["name"], one["parent"]) for one in acme["provides"] if one["kind"] == "command"]
    assert parents == [("tidy", None), ("tidy", "plugins"), ("list", "plugins"), ("start", "server")]
    status, _, err = cli("plugins", "tdy")
    assert status == 2
    assert "no command 'plugins tdy'; did you mean 'tidy'?" in err


@pytest.mark.usefixtures("subcommands")
def test_a_parent_that_takes_no_subcommands_is_said(cli: Any) -> None:
    status, _, err = cli("server", "start")
    assert status == 2
    assert (
        "no command 'server' for the subcommand acme/start; plugins can only add subcommands to 'plugins'"
        in err
    )
