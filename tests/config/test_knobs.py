"""A knob is declared once, beside its field: options, keywords, flat keys, schema and docs say what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from lightx2v_core.cli.options import RUN_OPTIONS, RunOption
from lightx2v_core.config import keywords
from lightx2v_core.config.declared import Setting, settings
from lightx2v_core.config.knob import Knob
from lightx2v_core.config.lightx2v.keys import LEGACY
from lightx2v_core.config.model import RunConfig
from lightx2v_core.config.schema import schema
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.spec.request import Request

DOCS = Path(__file__).resolve().parents[2] / "docs" / "config.md"
SETTINGS = {".".join(setting.path): setting for setting in settings()}


def fields_below(cls: type[Any], prefix: str = "") -> dict[str, Any]:
    """Every field of the configuration and of the sections inside it, by its key; found without ``settings``."""
    fields: dict[str, Any] = {}
    for field in attrs.fields(cls):
        inner = getattr(field.default, "factory", None)
        if isinstance(inner, type) and attrs.has(inner):
            fields |= fields_below(inner, f"{prefix}{field.name}.")
        else:
            fields[f"{prefix}{field.name}"] = field
    return fields


FIELDS = fields_below(RunConfig)
DECLARED: dict[str, Knob] = {key: field.metadata["knob"] for key, field in FIELDS.items()}


def test_every_field_is_declared() -> None:
    assert list(SETTINGS) == list(FIELDS)
    assert {key: setting.knob for key, setting in SETTINGS.items()} == DECLARED
    assert len(FIELDS) > 35


def option_of(key: str) -> RunOption | None:
    return next((option for option in RUN_OPTIONS if ".".join(option.key) == key), None)


@pytest.mark.parametrize("key", FIELDS)
def test_an_option_is_what_its_field_declares(key: str) -> None:
    option, declared = option_of(key), DECLARED[key].option
    assert (option is None) == (declared is None)
    if option is None or declared is None:
        return
    assert option.names == declared.names
    assert option.help == declared.help or option.help[1:] == f"{DECLARED[key].help}."[1:]
    assert option.multiple == declared.multiple
    if option.flag:
        assert option.sets is not FIELDS[key].default, "a flag changes something"
        assert option.names[0].startswith("--no-") is FIELDS[key].default


@pytest.mark.parametrize("command", ["run", "plan"])
def test_the_commands_have_these_options_and_no_others_of_keys(command: str) -> None:
    from importlib import import_module

    found = import_module(f"lightx2v_core.cli.{command}").command
    names = {
        name for parameter in found.params if isinstance(parameter, click.Option) for name in parameter.opts
    }
    declared = {name for knob in DECLARED.values() if knob.option for name in knob.option.names}
    assert declared <= names
    assert len(RUN_OPTIONS) == sum(knob.option is not None for knob in DECLARED.values())


def test_keywords_and_requests() -> None:
    said = {key: knob.keyword for key, knob in DECLARED.items() if knob.keyword}
    assert {".".join(path): name for name, path in keywords.KEYWORDS.items()} == {
        key: key.rpartition(".")[2] for key, kind in said.items() if kind in ("load", "request")
    }
    assert set(keywords.PER_REQUEST) == {
        key.rpartition(".")[2] for key, kind in said.items() if kind == "request"
    }
    assert set(keywords.INPUTS) == {field.name for field in attrs.fields(FIELDS_OF_INPUTS)}
    for name in keywords.PER_REQUEST:  # a size is two values of a request
        assert {"size": "width"}.get(name, name) in attrs.fields_dict(Request), name


FIELDS_OF_INPUTS = type(RunConfig().inputs)


def test_flat_keys() -> None:
    flat = {knob.flat: key for key, knob in DECLARED.items() if knob.flat}
    assert len(flat) > 15
    for name, key in flat.items():
        assert LEGACY[name].to == (key,)
        assert LEGACY[name].help == DECLARED[key].help


def in_schema(whole: dict[str, Any], key: str) -> dict[str, Any]:
    found = whole
    for name in key.split("."):
        found = found["properties"][name]
    return found


def test_schema_and_docs() -> None:
    whole, page = schema(load_plugins(environ={})), DOCS.read_text(encoding="utf-8").splitlines()
    for key, knob in DECLARED.items():
        assert in_schema(whole, key)["description"] == knob.help, key
        (row,) = [line for line in page if line.startswith(f"| `{key}` |") and not line.endswith("` |")] or [
            ""
        ]
        assert row.endswith(f"| {knob.help} |"), key


def test_a_field_is_all_that_a_new_knob_needs() -> None:
    """The option, keyword and key derived from a field that nothing else knows."""
    from lightx2v_core.cli.options import _run_option
    from lightx2v_core.config.knob import declared

    metadata: Any = declared("warmth of the video", "--warmth", keyword="request", flat="warmth")
    option = _run_option(
        Setting(path=("sampling", "warmth"), kind=float, default=None, knob=metadata["knob"])
    )
    assert (option.names, option.help, option.metavar) == (("--warmth",), "Warmth of the video.", "F")
    assert option.read("0.5") == 0.5
    assert option.key == ("sampling", "warmth")


def test_batched_guidance_is_an_option(tmp_path: Path) -> None:
    pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(tmp_path / "tiny", 0)
    line = [sys.executable, "-m", "lightx2v_core"]
    given = ["--model-path", str(tmp_path / "tiny"), "--prompt", "a fox", "--size", "32x32", "--frames", "1",
             "--steps", "1", "--batched-guidance", "--output", str(tmp_path / "fox.png")]  # fmt: skip
    plan = subprocess.run([*line, "plan", *given], capture_output=True, text=True, check=True).stdout
    assert "in one batch" in plan
    subprocess.run([*line, "run", *given], capture_output=True, check=True)
    record = json.loads((tmp_path / "fox.json").read_text(encoding="utf-8"))
    assert record["request"]["batched_guidance"] is True
