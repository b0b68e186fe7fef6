"""The contract of subcommands."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from lightx2v_core.spec.specs import CommandSpec
from lightx2v_core.testing.contracts.common import Contract


class CommandContract(Contract):
    """A click command that explains itself."""

    kind = "command"

    @pytest.fixture
    def command(self, spec: CommandSpec[Any], usable: None) -> click.Command:
        return spec.load()

    def test_it_loads_a_click_command(self, command: click.Command) -> None:
        assert isinstance(command, click.Command), (
            f"load gives a {type(command).__name__}, not a click.Command"
        )

    def test_it_explains_itself(self, spec: CommandSpec[Any], command: click.Command) -> None:
        done = CliRunner().invoke(command, ["--help"], prog_name=f"lightx2v-core {spec.name}")
        assert done.exit_code == 0, done.output
        assert f"Usage: lightx2v-core {spec.name}" in done.output
        assert (command.help or "").strip(), "a command says in its help what it does"

    def test_unknown_options_are_usage_errors(self, command: click.Command) -> None:
        done = CliRunner().invoke(command, ["--no-such-option"])
        assert done.exit_code == 2, done.output
        assert "--no-such-option" in done.output
