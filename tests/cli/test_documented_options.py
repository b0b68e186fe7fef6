"""Options that the documentation names exist."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lightx2v_core import cli
from lightx2v_core.api import CommandSpec, load_plugins
from lightx2v_core.config.lightx2v.flags import TABLE
from lightx2v_core.discovery import catalog

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/guides/*.md",
        "plugins/*/README.md",
        "examples/*.md",
        "examples/plugins/*/*.md",
    )
    for page in REPOSITORY.glob(pattern)
)
#: command lines of other programs, and of scripts that have options of their own
OTHERS = re.compile(r"\b(?:python|pip|pytest|tox|git|ruff|pre-commit)\b")


def options() -> set[str]:
    """Every option of every command, and those of other programs that are understood."""
    modules = [
        importlib.import_module(item.name)
        for item in pkgutil.walk_packages(cli.__path__, "lightx2v_core.cli.")
    ]
    brought = {given.spec.full_name: given.spec for given in load_plugins(environ={}).provided(CommandSpec)}
    if missing := set(catalog.commands()) - set(brought):
        pytest.skip(
            f"the pages have the options of all commands, and nothing here brings {', '.join(missing)}"
        )
    commands = [value for module in modules for value in vars(module).values()]
    commands += [spec.load() for spec in brought.values()]
    found = {"--help", *(name if name.startswith("--") else f"--{name}" for name in TABLE)}
    for command in commands:
        if isinstance(command, click.Command):
            found.update(name for parameter in command.params for name in parameter.opts)
    return found


def named(page: Path) -> Iterator[tuple[int, str]]:
    """Options on a page, with their lines; a line that ends in a backslash continues on the next one."""
    other = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        other = bool(OTHERS.search(line)) or (other and line.startswith(" "))
        if not other:
            yield from ((number, name) for name in re.findall(r"(?<![\w-])--[a-z][\w-]+", line))
        other = other and line.endswith("\\")


def test_every_option_in_the_docs_exists() -> None:
    assert len(PAGES) > 20
    known = options()
    assert len(known) > 80
    unknown = [
        f"{page.relative_to(REPOSITORY)}:{number}: {name}"
        for page in PAGES
        for number, name in named(page)
        if name not in known and page.name != "benchmarks.md"
    ]
    assert unknown == []


@pytest.mark.parametrize("name", ["run", "plan"])
def test_help_speaks_in_the_words_of_the_field(name):
    command = importlib.import_module(f"lightx2v_core.cli.{name}").command
    said = {item.opts[0]: item.help for item in command.params if isinstance(item, click.Option)}
    starts = {
        "--prompt": "Text prompt", "--negative-prompt": "Negative prompt", "--steps": "Number of denoising steps",
        "--frames": "Number of frames", "--guide-scale": "Guidance scale", "--seed": "Random seed",
        "--shift": "Flow shift", "--fps": "Frame rate",
    }  # fmt: skip
    assert {option: said[option][: len(start)] for option, start in starts.items()} == starts
