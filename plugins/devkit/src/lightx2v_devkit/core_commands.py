"""The commands of the core, whose names plugins cannot use."""

from __future__ import annotations

import click


def core_commands(ctx: click.Context) -> list[str]:
    """List the words after ``lightx2v-core``: all commands, and the siblings of the subcommand of ``ctx``."""
    program, beside = ctx.find_root().command, ctx.parent
    assert isinstance(program, click.Group)
    names = program.list_commands(ctx)
    if beside is not None and beside is not ctx.find_root() and isinstance(beside.command, click.Group):
        names = [*names, *(f"{beside.command.name} {name}" for name in beside.command.commands)]
    return names
