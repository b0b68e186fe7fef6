"""The command ``lightx2v-core inspect``: the contents of a model folder or file."""

from __future__ import annotations

from typing import Any

import click

from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.show_inspection import inspection_text
from lightx2v_core.cli.terminal import say_json
from lightx2v_core.inspection.inspect import inspect


@click.command("inspect")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on one line.")
@common_options
def command(path: str, as_json: bool, **parameters: Any) -> None:
    """Show the contents of PATH, a model folder or a weight file.

    The report lists components, LoRA files, problems and what can be run. Only file headers are read.
    """
    inspection = inspect(path, plugins_from(parameters))
    if as_json:
        say_json(inspection.to_json())
    else:
        click.echo(inspection_text(inspection), color=True)
