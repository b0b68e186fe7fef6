"""``lightx2v-core plugins check``: reports problems of installed plugins."""

from __future__ import annotations

import sys
from importlib import metadata

import click

from lightx2v_core.api import PluginsOptions, say, say_json
from lightx2v_devkit.audit.findings import error
from lightx2v_devkit.audit.import_checks import stuck
from lightx2v_devkit.audit.report import audit
from lightx2v_devkit.core_commands import core_commands
from lightx2v_devkit.distributions import GROUP


@click.command("check")
@click.argument("name", required=False)
@click.option(
    "--strict",
    is_flag=True,
    help="Also run the contract suites, and treat warnings as problems; slow, needs pytest.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, name: str | None, strict: bool, as_json: bool) -> None:
    """Check the installed plugins, or only NAME; exit status 1 if there is a problem."""
    options: PluginsOptions = ctx.obj
    held = stuck(metadata.entry_points(group=GROUP))
    plugins = options.load(disable=held)
    show = strict and sys.stderr.isatty()
    findings = audit(
        plugins,
        name=name,
        commands=core_commands(ctx),
        contracts=strict,
        tell=lambda plugin: say(f"checking {plugin}", err=True) if show else None,
    )
    findings += [error(plugin, text) for plugin, text in held.items() if name in (None, plugin)]
    by_level: dict[str, list[str]] = {"error": [], "warning": [], "note": []}
    for finding in findings:
        by_level[finding.level].append(finding.text)
    if as_json or options.as_json:
        say_json({"problems": by_level["error"], "warnings": by_level["warning"], "notes": by_level["note"]})
    else:
        for line in (
            *by_level["note"],
            *(f"warning: {text}" for text in by_level["warning"]),
            *by_level["error"],
        ):
            say(line)
        what = f"{len(plugins.plugins)} plugins" if name is None else plugins[name].name
        counts = f"{_counted(by_level['error'], 'problem')}, {_counted(by_level['warning'], 'warning')}"
        say(f"{what}, {counts}{' (an error with --strict)' if strict and by_level['warning'] else ''}")
    ctx.exit(1 if by_level["error"] or (strict and by_level["warning"]) else 0)


def _counted(texts: list[str], word: str) -> str:
    return f"{len(texts) or 'no'} {word}{'' if len(texts) == 1 else 's'}"
