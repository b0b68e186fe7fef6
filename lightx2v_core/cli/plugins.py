"""``lightx2v-core plugins``: what is installed, what it provides, and why something is not used."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import attrs
import click

from lightx2v_core.cli.options import common_options, plugins_from
from lightx2v_core.hookspecs import KINDS
from lightx2v_core.plugins import Plugin, PluginSet, Provided, canonical
from lightx2v_core.registry import Registry
from lightx2v_core.specs import BuildContext, Spec


@click.group("plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--timings", is_flag=True, help="Show the seconds each import took.")
@common_options
@click.pass_context
def command(ctx: click.Context, **parameters: Any) -> None:
    """List, show and check the installed plugins."""
    ctx.obj = {
        "as_json": parameters.pop("as_json"),
        "timings": parameters.pop("timings"),
        "options": parameters,
    }
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("list")
@click.pass_obj
def list_(obj: dict[str, Any]) -> None:
    """List plugins and what they provide."""
    plugins = plugins_from(dict(obj["options"]))
    if obj["as_json"]:
        click.echo(json.dumps([as_json(plugin) for plugin in plugins.plugins], ensure_ascii=False))
        return
    rows = [_row(plugin, timings=obj["timings"]) for plugin in plugins.plugins]
    for line in _table(rows):
        click.echo(line)
    for plugin in plugins.not_loaded():
        click.echo(f"{plugin.name} is {plugin.state}: {plugin.reason}")


@command.command("show")
@click.argument("name")
@click.pass_obj
def show(obj: dict[str, Any], name: str) -> None:
    """Show one plugin: its implementations, their options, and whether this machine can use them."""
    from lightx2v_core.device import probe

    plugins = plugins_from(dict(obj["options"]))
    plugin = plugins[name]
    ctx = BuildContext(device=probe()[0])
    if obj["as_json"]:
        click.echo(json.dumps(as_json(plugin, ctx), ensure_ascii=False))
        return
    click.echo(f"{plugin.name}: {plugin.dist_name} {plugin.version}, {plugin.module}, {plugin.state}")
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
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the installed plugins; exit status 1 when something is wrong with one."""
    plugins = plugins_from(dict(ctx.obj["options"]))
    found = problems(plugins)
    if ctx.obj["as_json"]:
        click.echo(json.dumps({"problems": found}, ensure_ascii=False))
    else:
        for problem in found or [f"{len(plugins.plugins)} plugins, no problems"]:
            click.echo(problem)
    ctx.exit(1 if found else 0)


def problems(plugins: PluginSet) -> list[str]:
    """Plugins that do not load, names that two of them claim, and distributions that are found twice."""
    found = list(plugins.warnings)
    for kind in KINDS:
        names: dict[str, list[str]] = {}
        for item in Registry(plugins).candidates(kind):
            names.setdefault(item.spec.name, []).append(item.qualified)
        found += [
            f"{kind} {name!r} comes from more than one plugin: {', '.join(sorted(owners))}; "
            "each needs its qualified name"
            for name, owners in names.items()
            if len(owners) > 1
        ]
    places: dict[str, list[str]] = {}
    for dist in metadata.distributions():
        name = canonical(dist.metadata["Name"] or "")
        if name.startswith("lightx2v-"):
            places.setdefault(name, []).append(str(dist.locate_file("")))
    found += [
        f"{name} is found {len(where)} times on the path, {where[0]} wins: {', '.join(where)}"
        for name, where in places.items()
        if len(where) > 1
    ]
    return found


def as_json(plugin: Plugin, ctx: BuildContext | None = None) -> dict[str, Any]:
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
    lines = []
    for option in attrs.fields(spec.config):
        kind = (
            option.type
            if isinstance(option.type, str)
            else getattr(option.type, "__name__", str(option.type))
        )
        default = "" if option.default is attrs.NOTHING else f" = {option.default!r}"
        lines.append(f"{option.name}: {kind}{default}")
    return lines


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
