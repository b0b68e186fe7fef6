"""Hook implementation. Imported at discovery, so the command is only imported when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightx2v_core.api import CommandSpec, NoOptions, hookimpl

if TYPE_CHECKING:
    import click


def _load() -> click.Command:
    from lightx2v_hub.command import command

    return command


@hookimpl
def lightx2v_commands() -> list[CommandSpec[NoOptions]]:
    return [CommandSpec(name="download", summary="Fetch the files of a model that a run needs.", load=_load)]
