"""The subcommands keep their contract and their options."""

from __future__ import annotations

import click
import pytest

from lightx2v_core.testing.contracts import CommandContract
from lightx2v_devkit.plugin import lightx2v_commands


class TestCheck(CommandContract):
    use, parent = "check", "plugins"


class TestNew(CommandContract):
    use, parent = "new", "plugins"


#: as they were while the core itself had these commands; scripts type them
PARAMETERS = {
    "check": ["NAME", "--json", "--strict"],
    "new": ["NAME", "--author", "--json", "--kind", "--license", "--output"],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_may_be_typed_stays(name: str) -> None:
    (spec,) = (spec for spec in lightx2v_commands() if spec.name == name)
    parameters = spec.load().params
    arguments = [one.human_readable_name for one in parameters if isinstance(one, click.Argument)]
    options = sorted(word for one in parameters if isinstance(one, click.Option) for word in one.opts)
    assert [*arguments, *options] == PARAMETERS[name]
