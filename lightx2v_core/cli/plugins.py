"""``lightx2v-core plugins``: what is installed, what it provides, and why something is not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, get_origin

import attrs
import click

from lightx2v_core.cli import COMMANDS
from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.distributions import found_twice
from lightx2v_core.hookspecs import KINDS
from lightx2v_core.plugins import GROUP, Plugin, PluginSet, Provided
from lightx2v_core.specs import BuildContext, Spec

F = TypeVar("F", bound=Callable[..., Any])


def _json_option(command: F) -> F:
    """``--json`` is understood before and behind the subcommand."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@click.group("plugins", invoke_without_command=True)
@_json_option
@click.option("--timings", is_flag=True, help="Show the seconds each import took.")
@common_options
@click.pass_context
def command(ctx: click.Context, /, **parameters: Any) -> None:
    """List, show and check the installed plugins."""
    ctx.obj = {
        "as_json": parameters.pop("as_json"),
        "timings": parameters.pop("timings"),
        "options": parameters,
    }
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("list")
@_json_option
@click.pass_obj
def list_(obj: dict[str, Any], as_json: bool) -> None:
    """List plugins and what they provide."""
    plugins = plugins_from(dict(obj["options"]))
    if as_json or obj["as_json"]:
        _print_json([plugin_json(plugin) for plugin in plugins.plugins])
        return
    rows = [_row(plugin, timings=obj["timings"]) for plugin in plugins.plugins]
    for line in _table(rows):
        click.echo(line)
    for plugin in plugins.not_loaded():
        click.echo(f"{plugin.name} is {plugin.state}: {plugin.reason}")


@command.command("show")
@click.argument("name")
@_json_option
@click.pass_obj
def show(obj: dict[str, Any], name: str, as_json: bool) -> None:
    """Show one plugin: its implementations, their options, and whether this machine can use them."""
    from lightx2v_core.device import probe

    plugin = plugins_from(dict(obj["options"]))[name]
    ctx = BuildContext(device=probe()[0])
    if as_json or obj["as_json"]:
        _print_json(plugin_json(plugin, ctx))
        return
    origin = f"{plugin.dist_name} {plugin.version}".strip()
    click.echo(f"{plugin.name}: {origin}, {plugin.module}, {plugin.state}")
    if plugin.reason:
        click.echo(f"  {plugin.reason}")
    if plugin.traceback:
        click.echo(plugin.traceback.rstrip())
    for item in plugin.provides:
        reasons = item.reasons(ctx)
        click.echo(f"  {item.kind} {item.spec.name}: {item.spec.summary}")
        click.echo(f"    {'cannot be used here: ' + '; '.join(reasons) if reasons else 'can be used here'}")
        for option in option_lines(item.spec):
            click.echo(f"    {option}")


@command.command("check")
@_json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check the installed plugins; exit status 1 when something is wrong with one."""
    plugins = plugins_from(dict(ctx.obj["options"]))
    found = problems(plugins)
    if as_json or ctx.obj["as_json"]:
        _print_json({"problems": found})
    else:
        for problem in found or [f"{len(plugins.plugins)} plugins, no problems"]:
            click.echo(problem)
    ctx.exit(1 if found else 0)


@command.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="What it brings: attention, scheduler, quantizer, offloader, lora-applier, weight-loader, model, command or "
    "checkpoint; several times for several.",
)
@click.option("--output", metavar="DIR", help="The folder to make; lightx2v-NAME when this is not given.")
@click.option("--author", default="", metavar="TEXT", help="Who has the copyright.")
@click.option(
    "--license", "license_", type=click.Choice(["Apache-2.0", "MIT"]), default="Apache-2.0", show_default=True
)
@_json_option
@click.pass_obj
def new(
    obj: dict[str, Any],
    name: str,
    kinds: tuple[str, ...],
    output: str | None,
    author: str,
    license_: str,
    as_json: bool,
) -> None:
    """Write a distribution NAME: a plugin with something of each KIND that works, its tests and a CI file."""
    from lightx2v_core.cli.plugins_new import summary, write_new

    made = write_new(
        plugins_from(dict(obj["options"])), name, kinds, output=output, author=author, license_=license_
    )
    if as_json or obj["as_json"]:
        _print_json(made)
    else:
        click.echo(summary(made))


def problems(plugins: PluginSet) -> list[str]:
    """Plugins that do not load, names that two of them claim, and distributions that are found twice."""
    found = list(plugins.warnings)
    for kind in KINDS:
        names: dict[str, list[str]] = {}
        for item in plugins.provided(kind):
            names.setdefault(item.spec.name, []).append(item.qualified)
        found += [
            f"{kind} {name!r} comes from more than one plugin: {', '.join(sorted(owners))}; "
            "each needs its qualified name"
            for name, owners in names.items()
            if len(owners) > 1
        ]
    found += [
        f"command {item.spec.name!r} is one of the core's; that of {item.plugin} is {item.qualified!r}"
        for item in plugins.provided("command")
        if item.spec.name in COMMANDS
    ]
    found += [
        f"{name} is found {len(where)} times on the path, {where[0]} wins: {', '.join(where)}"
        for name, where in found_twice(GROUP).items()
    ]
    return found


def plugin_json(plugin: Plugin, ctx: BuildContext | None = None) -> dict[str, Any]:
    """A plugin as plain data; with a context, also whether each implementation can be used."""
    return {
        "name": plugin.name,
        "distribution": plugin.dist_name,
        "version": plugin.version,
        "module": plugin.module,
        "state": plugin.state,
        "reason": plugin.reason,
        "seconds": round(plugin.seconds, 4),
        "provides": [_provided(item, ctx) for item in plugin.provides],
    }


def _provided(item: Provided, ctx: BuildContext | None) -> dict[str, Any]:
    spec = item.spec
    found = {"kind": item.kind, "name": spec.name, "summary": spec.summary, "priority": spec.priority}
    if ctx is not None:
        found["unusable"] = list(item.reasons(ctx))
        found["options"] = option_lines(spec)
    return found


def option_lines(spec: Spec[Any]) -> list[str]:
    """``name: type = default`` of each option of an implementation."""
    return [
        f"{option.name}: {_type(option.type)}{_default(option.default)}"
        for option in attrs.fields(spec.config)
    ]


def _type(hint: Any) -> str:
    """A type as it is written in source."""
    plain = isinstance(hint, type) and get_origin(hint) is None
    return hint.__name__ if plain else str(hint).replace("typing.", "")


def _default(value: Any) -> str:
    if value is attrs.NOTHING:
        return ""
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return " = ..." if value.takes_self else f" = {value.factory()!r}"
    return f" = {value!r}"


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False))


def _row(plugin: Plugin, *, timings: bool) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for item in plugin.provides:
        kinds.setdefault(item.kind, []).append(item.spec.name)
    provides = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items())
    row = [plugin.name, f"{plugin.dist_name} {plugin.version}".strip(), plugin.state, provides]
    return [*row[:3], f"{plugin.seconds * 1000:.0f} ms", row[3]] if timings else row


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
