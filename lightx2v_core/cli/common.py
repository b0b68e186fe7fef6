"""The options of every command: selection of plugins, and ``--debug``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import frozen

from lightx2v_core.discovery.plugins import PluginSet, load_plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

F = TypeVar("F", bound=Callable[..., Any])


def common_options(command: F) -> F:
    """Add ``--disable-plugin``, ``--only-plugins``, ``--strict-plugins`` and ``--debug`` to a click command.

    ``plugins_from`` reads them.
    """
    command = click.option("--debug", is_flag=True, help="Show a traceback on failure.")(command)
    command = click.option(
        "--strict-plugins", is_flag=True, help="Fail if a plugin cannot be loaded, instead of skipping it."
    )(command)
    command = click.option(
        "--only-plugins", metavar="NAMES", help="Load only these plugins (comma-separated)."
    )(command)
    return click.option(
        "--disable-plugin", metavar="NAME", multiple=True, help="Do not load this plugin. Repeatable."
    )(command)


def plugins_from(parameters: dict[str, Any]) -> PluginSet:
    """Load the plugins selected on a command line. Removes the parameters of ``common_options`` from ``parameters``.

    Raises ``PluginError`` if a plugin is broken and ``--strict-plugins`` is set.
    """
    parameters.pop("debug")
    only = parameters.pop("only_plugins")
    return load_plugins(
        disable=[name for text in parameters.pop("disable_plugin") for name in _names(text)],
        only=None if only is None else _names(only),
        strict=parameters.pop("strict_plugins"),
    )


@frozen(kw_only=True)
class PluginsOptions:
    """The options of the command ``plugins``, available to its subcommands as ``obj`` of their click context."""

    #: ``--json`` before the subcommand; a subcommand also has its own
    as_json: bool = False
    #: values of the options of every command
    parameters: Mapping[str, Any]

    def load(self, *, disable: Iterable[str] = ()) -> PluginSet:
        """Load the plugins that the options select, except those in ``disable``. Raises as ``load_plugins`` does."""
        switched_off = [*self.parameters["disable_plugin"], *disable]
        return plugins_from({**self.parameters, "disable_plugin": switched_off})


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
