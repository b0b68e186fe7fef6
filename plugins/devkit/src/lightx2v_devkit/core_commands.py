"""The commands that the core itself has, which no plugin can take the names of."""

from __future__ import annotations

import click


def core_commands(ctx: click.Context) -> list[str]:
    """List what is typed behind ``lightx2v-core``: all commands, and the subcommands beside the one of ``ctx``."""
    program, beside = ctx.find_root().command, ctx.parent
    assert isinstance(program, click.Group)
    names = program.list_commands(ctx)
    if beside is not None and beside is not ctx.find_root() and isinstance(beside.command, click.Group):
        names = [*names, *(f"{beside.command.name} {name}" for name in beside.command.commands)]
    return names
