"""The options of both commands, which scripts depend on: including those of LightX2V's converter.

``options.json`` holds every spelling. Review a difference, then rewrite the file with
``python tests/test_options.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from lightx2v_convert.plugin import lightx2v_commands

SNAPSHOT = Path(__file__).with_name("options.json")


def options() -> dict[str, list[str]]:
    return {spec.name: _spellings(spec.load()) for spec in lightx2v_commands()}


def _spellings(command: click.Command) -> list[str]:
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    spellings = [
        o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)
    ]
    return [*arguments, *sorted(spellings)]


def text() -> str:
    return json.dumps(options(), indent=1) + "\n"


def test_the_options_are_those_that_were_reviewed() -> None:
    assert SNAPSHOT.read_text(encoding="utf-8") == text(), "look at the difference; is it meant?"


if __name__ == "__main__":
    SNAPSHOT.write_text(text(), encoding="utf-8")
