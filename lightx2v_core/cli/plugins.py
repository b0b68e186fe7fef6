"""The command ``lightx2v-core plugins``: installed plugins, their implementations, and why one is not used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import attrs
import click
from attrs import frozen

from lightx2v_core.cli.common import PluginsOptions, common_options
from lightx2v_core.cli.group import ExtensibleGroup
from lightx2v_core.cli.terminal import escaped, say, say_json
from lightx2v_core.discovery.isolation import called, shown
from lightx2v_core.discovery.metadata import as_requirement, canonical
from lightx2v_core.discovery.plugins import Plugin, PluginSet, Provided
from lightx2v_core.errors import PluginFault
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import CommandSpec, Spec

if TYPE_CHECKING:
    from lightx2v_core.runtime.proof.claim import Verdict

F = TypeVar("F", bound=Callable[..., Any])


def _json_option(command: F) -> F:
    """Add ``--json``, accepted before and after the subcommand."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@frozen(kw_only=True)
class ListOptions(PluginsOptions):
    """The options of ``plugins``, including those of its listing only."""

    timings: bool
    requirements: bool


@click.group("plugins", cls=ExtensibleGroup, invoke_without_command=True)
@_json_option
@click.option("--timings", is_flag=True, help="Show the import time of each plugin.")
@click.option("--requirements", is_flag=True, help="Print a requirements file for the loaded plugins.")
@common_options
@click.pass_context
def command(ctx: click.Context, /, **parameters: Any) -> None:
    """List the installed plugins, or show and check them."""
    ctx.obj = ListOptions(
        as_json=parameters.pop("as_json"),
        timings=parameters.pop("timings"),
        requirements=parameters.pop("requirements"),
        parameters=parameters,
    )
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("list")
@_json_option
@click.pass_obj
def list_(obj: ListOptions, as_json: bool) -> None:
    """List the plugins and their implementations."""
    plugins = obj.load()
    if obj.requirements:
        lines = requirement_lines(plugins)
        if as_json or obj.as_json:
            _print_json(lines)
        for line in () if as_json or obj.as_json else lines:
            say(escaped(line))
        return
    if as_json or obj.as_json:
        _print_json([plugin_json(plugin) for plugin in plugins.plugins])
        return
    rows = [_row(plugin, timings=obj.timings) for plugin in plugins.plugins]
    for line in _table(rows):
        say(line)
    for plugin in plugins.not_loaded():
        say(f"{plugin.name} is {plugin.state}: {plugin.reason}")


@command.command("show")
@click.argument("name")
@_json_option
@click.pass_obj
def show(obj: ListOptions, name: str, as_json: bool) -> None:
    """Show a plugin: its implementations, options and usability.

    Usable kernels are tested in a separate process on a small product with a known result.
    """
    from lightx2v_core.cli.checkup import usual_context
    from lightx2v_core.cli.doctor import usable_text
    from lightx2v_core.plan.device import probe
    from lightx2v_core.runtime.proof.trial import trials

    plugins = obj.load()
    plugin = plugins[name]
    ctx = usual_context(probe()[0])
    tried = trials(plugins, [provided for provided in plugin.provides if not provided.reasons(ctx)], ctx)
    if as_json or obj.as_json:
        _print_json(plugin_json(plugin, ctx, tried))
        return
    origin = f"{plugin.dist_name} {plugin.version}".strip()
    say(f"{plugin.name}: {origin}, {plugin.module}, {plugin.state}")
    if plugin.reason:
        say(f"  {plugin.reason}")
    if plugin.traceback:
        say("\n".join(f"  {line}" for line in plugin.traceback.rstrip().split("\n")))
    for provided in plugin.provides:
        reasons = provided.reasons(ctx)
        say(f"  {provided.kind} {provided.spec.name}: {provided.spec.summary}")
        said = (
            f"not usable here: {'; '.join(reasons)}"
            if reasons
            else usable_text(tried.get(provided), "usable here")
        )
        say(f"    {said}")
        try:
            rows = called(
                f"reading the options of {provided.kind} {provided.spec.name}", options, provided.spec
            )
        except PluginFault as exc:
            say(f"    {exc}")
            continue
        for option in rows:
            say(f"    {option['name']}: {option['type']}{option['default'] and ' = ' + option['default']}")
            if option["help"]:
                say(f"      {option['help']}")


def requirement_lines(plugins: PluginSet) -> list[str]:
    """List the core and the loaded plugins as pip requirements, sorted by name, each distribution once."""
    dists = {
        canonical(plugin.dist_name): plugin.dist
        for plugin in plugins.plugins
        if plugin.state == "loaded" and plugin.dist is not None
    }
    return [as_requirement(dist) for _, dist in sorted(dists.items())]


def plugin_json(
    plugin: Plugin,
    ctx: BuildContext | None = None,
    tried: Mapping[Provided, Verdict] = MappingProxyType({}),
) -> dict[str, Any]:
    """Convert a plugin to plain data.

    With a context it includes whether each implementation is usable, and the proofs of those that were ``tried``.
    """
    return {
        "name": plugin.name,
        "distribution": plugin.dist_name,
        "version": plugin.version,
        "module": plugin.module,
        "state": plugin.state,
        "reason": plugin.reason,
        "seconds": round(plugin.seconds, 4),
        "provides": [_provided(provided, ctx, tried.get(provided)) for provided in plugin.provides],
    }


def _provided(provided: Provided, ctx: BuildContext | None, verdict: Verdict | None) -> dict[str, Any]:
    spec = provided.spec
    entry: dict[str, Any] = {
        "kind": provided.kind,
        "name": spec.name,
        "summary": spec.summary,
        "priority": spec.priority,
    }
    if isinstance(spec, CommandSpec):
        entry["parent"] = spec.parent
    if ctx is not None:
        entry["unusable"] = list(provided.reasons(ctx))
        entry["proof"] = None if verdict is None else attrs.asdict(verdict)
        from lightx2v_core.config.schema import options_schema

        who = f"reading the options of {provided.kind} {spec.name}"
        entry["options"] = called(who, options, spec)
        entry["schema"] = called(who, options_schema, spec.config)
    return entry


def options(spec: Spec[Any]) -> list[dict[str, str]]:
    """List the name, type, default and help of each option of an implementation as text.

    The default of a required option is empty.
    """
    from lightx2v_core.config.option_help import option_help

    said = option_help(spec.config)
    return [
        {
            "name": option.name,
            "type": _type(option.type),
            "default": _default(option.default),
            "help": said[option.name],
        }
        for option in attrs.fields(spec.config)
    ]


def _type(hint: Any) -> str:
    """Format a type as in source code."""
    plain = isinstance(hint, type) and get_origin(hint) is None
    return hint.__name__ if plain else str(hint).replace("typing.", "")


def _default(value: Any) -> str:
    if value is attrs.NOTHING:
        return ""
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return "..." if value.takes_self else shown(value.factory())
    return shown(value)


def _print_json(data: Any) -> None:
    say_json(data)


def _row(plugin: Plugin, *, timings: bool) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for provided in plugin.provides:
        name = provided.spec.full_name if isinstance(provided.spec, CommandSpec) else provided.spec.name
        kinds.setdefault(provided.kind, []).append(name)
    provides = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items())
    row = [plugin.name, f"{plugin.dist_name} {plugin.version}".strip(), plugin.state, provides]
    return [*row[:3], f"{plugin.seconds * 1000:.0f} ms", row[3]] if timings else row


def _table(rows: list[list[str]]) -> list[str]:
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
