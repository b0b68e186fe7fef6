"""The hook implementation. Imported at discovery, so this module must be light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightx2v_core.api import CommandSpec, NoOptions, hookimpl

if TYPE_CHECKING:
    import click


def _load_convert() -> click.Command:
    from lightx2v_convert.command import command

    return command


def _load_extract_lora() -> click.Command:
    from lightx2v_convert.extract_command import command

    return command


@hookimpl
def lightx2v_commands() -> list[CommandSpec[NoOptions]]:
    return [
        CommandSpec(
            name="convert", summary="Quantize, split or rename weights, merge LoRA files.", load=_load_convert
        ),
        CommandSpec(
            name="extract-lora",
            summary="Extract a LoRA file from the difference of two networks.",
            load=_load_extract_lora,
        ),
    ]
