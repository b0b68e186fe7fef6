"""The catalog of what first-party plugins bring is what they bring; the core itself names none of them.

``python tests/test_catalog.py`` rewrites it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FILE = REPOSITORY / "lightx2v_core" / "discovery" / "catalog.json"
COLLECT = """
import importlib, json, sys, typing
from lightx2v_core.spec.hooks import KINDS
found = {}
for extra, module in zip(sys.argv[1::2], sys.argv[2::2]):
    plugin = importlib.import_module(module)
    for kind, (hook, _) in KINDS.items():
        for spec in getattr(plugin, hook, list)():
            own = spec.full_name if kind == "command" else spec.name
            for name in [own, *getattr(spec, "aliases", ())]:
                entry = {"name": own, "extra": extra}
                if kind == "weight_loader":
                    entry["suffixes"] = spec.suffixes
                if kind == "model":
                    entry["tasks"] = list(spec.tasks)
                if kind == "quantizer":
                    entry["formats"] = sorted(spec.formats)
                if kind == "offloader":
                    hints = typing.get_type_hints(spec.config).items()
                    closed = {key: hint for key, hint in hints if typing.get_origin(hint) is typing.Literal}
                    entry["options"] = {key: typing.get_args(hint) for key, hint in closed.items()}
                if kind == "command":
                    entry |= {"summary": spec.summary, "module": module.partition(".")[0], "needs": spec.extra}
                found.setdefault(kind, {})[name] = entry
print(json.dumps(found))
"""


def collected() -> dict[str, Any]:
    """Kind -> name -> who brings it. The plugins need not be installed: listing them imports nothing heavy."""
    plugins = sorted(file.parent for file in (REPOSITORY / "plugins").glob("*/pyproject.toml"))
    words, paths = [], [str(REPOSITORY)]
    for folder in plugins:
        (package,) = (folder / "src").glob("lightx2v_*")
        words += [folder.name.replace("_", "-"), f"{package.name}.plugin"]
        paths.append(str(folder / "src"))
    code = f"import sys; sys.path[:0] = {paths!r}\n{COLLECT}"
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout)
    for entries in found.values():
        for entry in entries.values():
            entry["distribution"] = f"lightx2v-{entry['extra']}"
            if "needs" in entry:
                entry["needs"] = first_requirement(entry["extra"], entry["needs"])
    return found


def asked(extra: str) -> str:
    """Return the arguments of ``pip install``, in the folder that the tests run in."""
    from lightx2v_core.discovery.catalog import install

    return install({"extra": extra})


def first_requirement(plugin: str, extra: str | None) -> list[str]:
    """What an extra of a plugin is there for, the first of its requirements, by the name that it is imported by too."""
    text = (REPOSITORY / "plugins" / plugin.replace("-", "_") / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'^{extra} = \["([\w]+)', text, re.MULTILINE)
    return [found[1]] if extra and found else []


def written(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def test_the_catalog_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == written(collected()), "run: python tests/test_catalog.py"


def test_the_core_names_no_model() -> None:
    """Words that only a model plugin may know; the tables of the original's vocabulary name keys, not models."""
    words = re.compile(r"wan[-_]?2|umt5|wan21|wan22|ti2v|a14b", re.IGNORECASE)
    found = []
    for file in sorted((REPOSITORY / "lightx2v_core").rglob("*.py")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if words.search(line) and file.parent.name != "lightx2v" and file.name != "lightx2v_models.py":
                found.append(f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


#: names that a plugin shares with a device, a format of files, a library
SHARED = {"cpu", "disk", "gguf", "xformers"}
#: LightX2V's vocabulary has names for them too; it is translated here, and nowhere else
VOCABULARY = REPOSITORY / "lightx2v_core" / "config" / "lightx2v"


def names_of_plugins() -> set[str]:
    """What first-party plugins bring: models and their tasks, kernels, checkpoints, distributions."""
    known = json.loads(FILE.read_text(encoding="utf-8"))
    entries = [entry for entries in known.values() for entry in entries.values()]
    names = {name for kind, entries in known.items() if kind != "command" for name in entries}
    tasks = {task for entry in entries for task in entry.get("tasks", ())}
    return (names | tasks | {entry["distribution"] for entry in entries}) - SHARED


def test_the_core_names_no_plugin() -> None:
    """No text of the core is the name of something that a plugin brings, or lists such names, as ``--help`` may."""
    names = names_of_plugins()
    assert {"fp8-vllm", "flash-attn3", "t2v", "wan2.1", "lightx2v-offload"} <= names
    found = []
    for file in sorted((REPOSITORY / "lightx2v_core").rglob("*.py")):
        if VOCABULARY in file.parents or "template" in file.parts:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                named = names & set(re.findall(r"[\w.-]*\w", node.value))
                found += [f"{file.relative_to(REPOSITORY)}:{node.lineno}: {name}" for name in sorted(named)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("kind", "name", "extra"), [("model", "wan2.1", "wan21"), ("model", "wan2.2_moe", "wan22")]
)
def test_what_is_missing_is_named_with_its_distribution(kind: str, name: str, extra: str) -> None:
    from lightx2v_core.discovery.catalog import provider

    text = provider(kind, name)
    assert text == f"{kind} {name!r} is provided by lightx2v-{extra}: pip install {asked(extra)}"
    assert provider(kind, "no-such") == ""


def test_who_reads_a_kind_of_file_is_named() -> None:
    from lightx2v_core.discovery.catalog import reader

    assert reader(".gguf") == f"lightx2v-gguf reads .gguf files: pip install {asked('gguf')}"
    assert reader(".acme") == ""


@pytest.mark.parametrize("model", ["wan21", "wan22"])
def test_who_installs_a_model_can_download_it(model: str) -> None:
    """The extra of a model and what messages say of it bring ``download``, which its user types next."""
    extras = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'^{model} = \[.*"lightx2v-hub>', extras, re.MULTILINE)
    assert "plugins/hub" in asked(model)


def test_the_command_line_says_what_to_install() -> None:
    """A core without plugins."""
    code = (
        "import sys; from lightx2v_core.cli import main\n"
        "main(['plan', '--model-path', sys.argv[1], '--only-plugins', '', *sys.argv[2:]])"
    )
    where = str(REPOSITORY / "tests")
    result = subprocess.run([sys.executable, "-c", code, where], capture_output=True, text=True)
    assert result.returncode == 2
    assert "no model plugin is installed" in result.stderr
    assert f"lightx2v-wan21 provides wan2.1: pip install {asked('wan21')}" in result.stderr
    result = subprocess.run(
        [sys.executable, "-c", code, where, "--model", "wan2.1"], capture_output=True, text=True
    )
    assert f"model 'wan2.1' is provided by lightx2v-wan21: pip install {asked('wan21')}" in result.stderr


@pytest.mark.parametrize(
    ("there", "listed"), [({"lightx2v_gradio", "gradio"}, True), ({"lightx2v_gradio"}, False), (set(), False)]
)
def test_help_lists_a_command_that_can_be_used(
    there: set[str], listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightx2v_core.cli import listed as module

    monkeypatch.setattr(module, "find_spec", lambda name: name if name in there else None)
    assert ("ui" in module.listed_commands()) == listed
    assert module.listed_commands("plugins") == {}


def test_help_of_a_command_lists_its_own_subcommands(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from lightx2v_core.cli import listed
    from lightx2v_core.cli.plugins import command

    monkeypatch.setattr(listed, "find_spec", lambda name: name)
    assert set(listed.listed_commands("plugins")) == {"check", "new"}
    assert not {"check", "new"} & set(listed.listed_commands())
    text = CliRunner().invoke(command, ["--help"]).output
    assert "Plugin commands:\n  check  Check the installed plugins.\n  new    Write a dist" in text
    monkeypatch.setattr(listed, "find_spec", lambda name: None)
    assert "check  " not in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("ui", "gradio"),
        ("download", "hub"),
        ("convert", "convert"),
        ("plugins check", "devkit"),
        ("plugins new", "devkit"),
    ],
)
def test_a_command_that_is_missing_says_what_to_install(command: str, extra: str) -> None:
    code = "import sys; from lightx2v_core.cli import main\nmain(sys.argv[1:])"
    from lightx2v_core.discovery.plugins import discover

    off = extra if any(entry.name == extra for entry in discover()) else ""
    env = {**os.environ, "LIGHTX2V_DISABLE_PLUGINS": off}
    result = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True, env=env
    )
    assert result.returncode == 2
    assert (f"not loaded: {extra} (disabled: excluded by name)" in result.stderr) == bool(off)
    assert f"command {command!r} is provided by lightx2v-{extra}: pip install {asked(extra)}" in result.stderr


@pytest.mark.parametrize("extra", sorted(folder.name for folder in (REPOSITORY / "plugins").iterdir()))
def test_what_pip_is_asked_for_is_there(extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a checkout folders, with all that a plugin needs of this project; anywhere else the extra."""
    from lightx2v_core.discovery import catalog

    name = extra.replace("_", "-")
    monkeypatch.chdir(tmp_path)
    words = catalog.install({"extra": name}).replace("'", "").split()
    assert words[::2] == ["-e"] * (len(words) // 2)
    folders = [Path(word.partition("[")[0]) for word in words[1::2]]
    assert folders[-1] == REPOSITORY / "plugins" / extra
    brought = {f"lightx2v-{folder.name.replace('_', '-')}" for folder in folders}
    for folder in folders:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        assert needed is not None
        assert set(re.findall(r'"(lightx2v-[\w-]+)', needed[1])) <= {"lightx2v-core", *brought}
    with_extra = words[-1].partition("[")[2].rstrip("]")
    assert with_extra == ("page" if extra == "gradio" else "")
    monkeypatch.chdir(REPOSITORY)
    assert str(REPOSITORY) not in catalog.install({"extra": name})
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "lightx2v_core" / "catalog.py"))
    assert catalog.install({"extra": name}) == f"'lightx2v-core[{name}]'"


if __name__ == "__main__":
    FILE.write_text(written(collected()), encoding="utf-8")
