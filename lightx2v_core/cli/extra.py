"""Subcommands that plugins bring."""

from __future__ import annotations

import click

from lightx2v_core.cli.terminal import say
from lightx2v_core.discovery import catalog
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginError, PluginFault
from lightx2v_core.plan.device import probe
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import CommandSpec


def plugin_command(name: str) -> click.Command | None:
    """The command a plugin registered under ``name``, if any. ``PluginError`` when it cannot be used."""
    registry = Registry(_plugins())
    if not any(name in (item.spec.name, item.qualified) for item in registry.candidates("command")):
        return None
    try:
        chosen = registry.select("command", name, BuildContext(device=probe()[0])).chosen
    except PluginError as exc:
        brought = catalog.provider("command", name)
        raise PluginError(f"{exc}\n  {brought}" if brought else str(exc)) from None
    assert isinstance(chosen.spec, CommandSpec)
    try:
        return chosen.spec.load()
    except PluginFault as exc:
        raise PluginError(f"command {name!r} cannot be loaded: {exc.why}") from exc


def command_names() -> list[str]:
    """The commands that plugins bring, by name."""
    return [item.spec.name for item in Registry(_plugins()).candidates("command")]


def _plugins() -> PluginSet:
    """The plugins, loaded once an invocation: click asks for a command more than once."""
    ctx = click.get_current_context(silent=True)
    found: PluginSet | None = None if ctx is None else ctx.meta.get(__name__)
    if found is None:
        found = load_plugins()
        for warning in found.warnings:
            say(f"warning: {warning}", err=True)
        if ctx is not None:
            ctx.meta[__name__] = found
    return found
