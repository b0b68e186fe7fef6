"""The hook implementations. Imported at discovery, so this module must be light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightx2v_core.api import CommandSpec, NoOptions, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def lightx2v_commands() -> list[CommandSpec[NoOptions]]:
    return [
        CommandSpec(name="check", parent="plugins", summary="Check the installed plugins.", load=_load_check),
        CommandSpec(
            name="new",
            parent="plugins",
            summary="Write a distribution with a working plugin.",
            load=_load_new,
        ),
    ]


def _load_check() -> click.Command:
    from lightx2v_devkit.check_command import check

    return check


def _load_new() -> click.Command:
    from lightx2v_devkit.new_command import new

    return new
