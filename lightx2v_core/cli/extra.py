"""Subcommands that plugins bring."""

from __future__ import annotations

import click

from lightx2v_core.plugins import load_plugins
from lightx2v_core.registry import Registry
from lightx2v_core.specs import BuildContext, CommandSpec


def plugin_command(name: str) -> click.Command | None:
    """The command a plugin registered under ``name``, if any. ``PluginError`` when it cannot be used."""
    plugins = load_plugins()
    for warning in plugins.warnings:
        click.echo(f"warning: {warning}", err=True)
    registry = Registry(plugins)
    if not any(name in (item.spec.name, item.qualified) for item in registry.candidates("command")):
        return None
    spec = registry.select("command", name, BuildContext()).chosen.spec
    assert isinstance(spec, CommandSpec)
    return spec.load()
