"""Subcommands with one mistake each."""

from __future__ import annotations

from typing import Any, ClassVar

import click

from lightx2v_core.api import CommandSpec
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import CommandContract


@click.command()
def hello() -> None:
    """Greet."""


class Wrong(CommandContract):
    use = "given/hello"
    caught_by: ClassVar[str]
    given: ClassVar[Any] = hello

    def plugins(self) -> PluginSet:
        return plugin_set(CommandSpec(name="hello", summary="Greet.", load=lambda: self.given))


class TestRight(Wrong):
    """The one that is not wrong."""


class TestIsAFunction(Wrong):
    caught_by = "test_it_loads_a_click_command"
    given = staticmethod(lambda: None)


@click.command()
def silent() -> None:
    pass


class TestSaysNothing(Wrong):
    caught_by = "test_it_explains_itself"
    given = silent


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def patient() -> None:
    """Take anything."""


class TestTakesAnything(Wrong):
    caught_by = "test_unknown_options_are_usage_errors"
    given = patient


class TestIsOfACommandThatTakesNone(Wrong):
    caught_by = "test_its_parent_takes_subcommands"
    parent = "run"

    def plugins(self) -> PluginSet:
        return plugin_set(CommandSpec(name="hello", parent="run", summary="Greet.", load=lambda: hello))
