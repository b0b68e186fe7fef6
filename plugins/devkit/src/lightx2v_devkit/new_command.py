"""``lightx2v-core plugins new``: writes a new distribution with working implementations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from lightx2v_core.api import PluginSet, PluginsOptions, current_interruption, say, say_json
from lightx2v_devkit.core_commands import core_commands
from lightx2v_devkit.distributions import CORE_DIST
from lightx2v_devkit.scaffold.composition import Wish, composed
from lightx2v_devkit.scaffold.creation import admitting, check_new, create
from lightx2v_devkit.scaffold.identity import check_free, identity, kinds_from


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Kind of implementation: attention, scheduler, quantizer, offloader, lora-applier, weight-loader, model, "
    "command or checkpoint; may be repeated.",
)
@click.option("--output", metavar="DIR", help="The folder to create [default: lightx2v-NAME].")
@click.option("--author", default="", metavar="TEXT", help="Copyright holder.")
@click.option(
    "--license", "license_", type=click.Choice(["Apache-2.0", "MIT"]), default="Apache-2.0", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def new(
    ctx: click.Context,
    name: str,
    kinds: tuple[str, ...],
    output: str | None,
    author: str,
    license_: str,
    as_json: bool,
) -> None:
    """Write a distribution NAME: a plugin with a working implementation of each KIND, tests and a CI file."""
    options: PluginsOptions = ctx.obj
    made = write_new(
        options.load(),
        name,
        kinds,
        commands=core_commands(ctx),
        output=output,
        author=author,
        license_=license_,
    )
    if as_json or options.as_json:
        say_json(made)
    else:
        for line in summary(made).split("\n"):
            say(line)


def write_new(
    plugins: PluginSet,
    name: str,
    words: Sequence[str],
    *,
    commands: Sequence[str],
    output: str | None,
    author: str,
    license_: str,
) -> dict[str, Any]:
    """Write a distribution and return its description as plain data. ``commands`` are those of the core.

    Raises ``PluginError`` or ``RequestError`` for an invalid name, kind or folder.
    """
    wanted, kinds = identity(name), kinds_from(words)
    provided: dict[str, list[str]] = {
        kind: [given.spec.name for given in plugins.provided(kind)] for kind in kinds
    }
    if "command" in provided:
        provided["command"] += commands
    installed = {plugin.name: plugin.dist_name for plugin in plugins.plugins}
    check_free(wanted, kinds, plugins=installed, provided=provided)
    folder = Path(output if output is not None else wanted.distribution)
    check_new(folder)
    wish = Wish(
        identity=wanted,
        kinds=kinds,
        license=license_,
        author=author,
        year=date.today().year,
        admits=admitting(metadata.version(CORE_DIST)),
    )
    contents = composed(wish)
    create(folder, contents, current_interruption().finish)
    return {
        "plugin": wanted.name,
        "distribution": wanted.distribution,
        "kinds": list(kinds),
        "folder": str(folder),
        "files": sorted(contents),
    }


def summary(made: dict[str, Any]) -> str:
    """Summarize the written distribution and the next steps."""
    return "\n".join(
        [
            f"{made['folder']}: {made['distribution']} with {', '.join(made['kinds'])}, {len(made['files'])} files",
            "next:",
            f"  cd {made['folder']}",
            '  python -m pip install -e ".[dev]"',
            "  python -m pytest",
            f"  lightx2v-core plugins check {made['plugin']} --strict",
            f"src/{made['distribution'].replace('-', '_')}/plugin.py is the place to start",
        ]
    )
