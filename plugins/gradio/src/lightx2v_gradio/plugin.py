"""The entry point. Imported at discovery, so it has no heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightx2v_core.api import CommandSpec, NoOptions, hookimpl

if TYPE_CHECKING:
    import click


def _load() -> click.Command:
    from lightx2v_gradio.command import command

    return command


@hookimpl
def lightx2v_commands() -> list[CommandSpec[NoOptions]]:
    return [CommandSpec(name="ui", summary="Open the web page.", extra="page", load=_load)]
