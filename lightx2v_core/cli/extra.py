"""Commands of plugins: at the top level, and below the commands of the core that accept them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click
from attrs import evolve

from lightx2v_core.cli.terminal import say
from lightx2v_core.discovery import catalog
from lightx2v_core.discovery.metadata import canonical, name_of
from lightx2v_core.discovery.plugins import PluginSet, Provided, discover, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginError, PluginFault, suggestion
from lightx2v_core.plan.device import probe
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import COMMAND_PARENTS, CommandSpec


def plugin_command(name: str, *, parent: str | None = None) -> click.Command | None:
    """Load the command that a plugin registered as ``name``, if any. Raises ``PluginError`` if it is not usable."""
    registry = Registry(_under(parent, _plugins_for(_full_name(name, parent))))
    if not any(name in (given.spec.name, given.qualified) for given in registry.candidates(CommandSpec)):
        return None
    try:
        selected = registry.select(CommandSpec, name, BuildContext(device=probe()[0])).chosen
    except PluginError as exc:
        brought = catalog.provider("command", _full_name(name, parent))
        raise PluginError(f"{exc}\n  {brought}" if brought else str(exc)) from None
    try:
        return selected.spec.load()
    except PluginFault as exc:
        raise PluginError(f"command {selected.spec.full_name!r} cannot be loaded: {exc.why}") from exc


def missing_command(name: str, *, own: Iterable[str], parent: str | None = None) -> str:
    """Build the message for a missing command: its provider, or a similar name among ``own`` and those of plugins."""
    full = _full_name(name, parent)
    if brought := catalog.provider("command", full):
        return "\n".join([brought, *_not_loaded(full)])
    if stray := sorted(given.qualified for given in _under(name, _all_plugins()).provided(CommandSpec)):
        return (
            f"no command {full!r} for the subcommand {', '.join(stray)}; plugins can only add subcommands to "
            f"{', '.join(map(repr, sorted(COMMAND_PARENTS)))}"
        )
    known = [*own, *(given.spec.name for given in _under(parent, _all_plugins()).provided(CommandSpec))]
    return f"no command {full!r}{suggestion(name, known)}"


def _not_loaded(full_name: str) -> list[str]:
    """List the reasons why a command is missing although its distribution is installed."""
    return [
        f"  not loaded: {plugin.name} ({plugin.state}: {plugin.reason})"
        for plugin in _plugins_for(full_name).not_loaded()
        if canonical(plugin.dist_name) == catalog.distribution("command", full_name)
    ]


def _full_name(name: str, parent: str | None) -> str:
    return name if parent is None else f"{parent} {name}"


def _under(parent: str | None, plugins: PluginSet) -> PluginSet:
    """Reduce plugins to their commands below one parent."""

    def belongs(given: Provided) -> bool:
        return isinstance(given.spec, CommandSpec) and given.spec.parent == parent

    return evolve(
        plugins,
        plugins=tuple(
            evolve(plugin, provides=tuple(given for given in plugin.provides if belongs(given)))
            for plugin in plugins.plugins
        ),
    )


def _plugins_for(full_name: str) -> PluginSet:
    """Load the plugins that may provide a command.

    For a command in the catalog only its own plugin is imported, so that a broken one cannot prevent its start:
    ``plugins check`` has to work to find that one. ``LIGHTX2V_PLUGINS`` limits the plugins of runs, like
    ``--only-plugins``, and does not affect such commands.
    """
    distribution = catalog.distribution("command", full_name)
    if not distribution or all(canonical(name_of(entry.dist)) != distribution for entry in discover()):
        return _all_plugins()
    switches = {name: value for name, value in os.environ.items() if name != "LIGHTX2V_PLUGINS"}
    return _once(distribution, lambda: load_plugins(only=[distribution], environ=switches))


def _all_plugins() -> PluginSet:
    return _once("", load_plugins)


def _once(key: str, load: Callable[[], PluginSet]) -> PluginSet:
    """Load the plugins once per invocation: click looks up a command more than once."""
    ctx = click.get_current_context(silent=True)
    kept: dict[str, PluginSet] = {} if ctx is None else ctx.meta.setdefault(__name__, {})
    if key not in kept:
        kept[key] = load()
        for warning in kept[key].warnings:
            say(f"warning: {warning}", err=True)
    return kept[key]
