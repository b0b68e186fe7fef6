"""The command ``lightx2v-core plan``: the options of ``run``, without loading weights."""

from __future__ import annotations

from typing import Any

import click

from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.foreign import ForeignOptions
from lightx2v_core.cli.options import config_from, run_options
from lightx2v_core.cli.show_plan import plan_text
from lightx2v_core.cli.terminal import say_json
from lightx2v_core.events import PlanReady
from lightx2v_core.plan.resolve import resolve


@click.command("plan", cls=ForeignOptions)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on one line.")
@common_options
def command(**parameters: Any) -> None:
    """Show the plan of a run: choices, reasons, memory.

    Only file headers are read; no weights are loaded.
    """
    as_json = parameters.pop("as_json")
    plugins = plugins_from(parameters)
    plan = resolve(config_from(parameters), plugins, with_output=True).plan
    if as_json:
        say_json(PlanReady(plan=plan.to_json()).to_json())
    else:
        click.echo(plan_text(plan), color=True)
