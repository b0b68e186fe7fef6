"""The contract of subcommands."""

from __future__ import annotations

from typing import Any, ClassVar

import click
import pytest
from click.testing import CliRunner

from lightx2v_core.discovery.plugins import Provided
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.spec.specs import COMMAND_PARENTS, CommandSpec
from lightx2v_core.testing.contracts.common import Contract


class CommandContract(Contract):
    """A click command with a help text."""

    kind = "command"
    #: parent command of ``use``, such as ``plugins``; None: the program itself
    parent: ClassVar[str | None] = None

    @pytest.fixture
    def provided(self) -> Provided:
        wanted = [
            given
            for given in Registry(self.plugins()).named(self.kind, self.use)
            if isinstance(given.spec, CommandSpec) and given.spec.parent == self.parent
        ]
        asked = self.use if self.parent is None else f"{self.parent} {self.use}"
        assert len(wanted) == 1, f"expected one plugin with the command {asked!r}, found {len(wanted)}"
        return wanted[0]

    def test_its_parent_takes_subcommands(self, spec: CommandSpec[Any]) -> None:
        assert spec.parent is None or spec.parent in COMMAND_PARENTS, (
            f"{spec.parent!r} accepts no subcommands from plugins; use {', '.join(sorted(COMMAND_PARENTS))}"
        )

    @pytest.fixture
    def command(self, spec: CommandSpec[Any], usable: None) -> click.Command:
        return spec.load()

    def test_it_loads_a_click_command(self, command: click.Command) -> None:
        assert isinstance(command, click.Command), (
            f"load returned a {type(command).__name__}, not a click.Command"
        )

    def test_it_explains_itself(self, spec: CommandSpec[Any], command: click.Command) -> None:
        done = CliRunner().invoke(command, ["--help"], prog_name=f"lightx2v-core {spec.full_name}")
        assert done.exit_code == 0, done.output
        assert f"Usage: lightx2v-core {spec.full_name}" in done.output
        assert (command.help or "").strip(), "the command has no help text"

    def test_unknown_options_are_usage_errors(self, command: click.Command) -> None:
        done = CliRunner().invoke(command, ["--no-such-option"])
        assert done.exit_code == 2, done.output
        assert "--no-such-option" in done.output
