"""The options of every command: which plugins are loaded, and ``--debug``."""

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
    """Add the options of every command to a click command: ``--disable-plugin``, ``--only-plugins``,
    ``--strict-plugins`` and ``--debug``. ``plugins_from`` reads them."""
    command = click.option("--debug", is_flag=True, help="Show a traceback when something fails.")(command)
    command = click.option(
        "--strict-plugins", is_flag=True, help="Fail when a plugin does not load, instead of leaving it out."
    )(command)
    command = click.option(
        "--only-plugins", metavar="NAMES", help="Load only these plugins, comma separated."
    )(command)
    return click.option("--disable-plugin", metavar="NAME", multiple=True, help="Leave a plugin out.")(
        command
    )


def plugins_from(parameters: dict[str, Any]) -> PluginSet:
    """Load the plugins that a command line admits. Removes what ``common_options`` added from ``parameters``.

    ``PluginError`` when one of them is broken and ``--strict-plugins`` is given.
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
    """What was given to the command ``plugins``; its subcommands find it in the ``obj`` of their click context."""

    #: whether JSON is asked for; a subcommand has ``--json`` of its own besides
    as_json: bool = False
    #: the values of the options of every command
    parameters: Mapping[str, Any]

    def load(self, *, disable: Iterable[str] = ()) -> PluginSet:
        """Load the plugins that the options admit, without those of ``disable``. Errors as of ``load_plugins``."""
        switched_off = [*self.parameters["disable_plugin"], *disable]
        return plugins_from({**self.parameters, "disable_plugin": switched_off})


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
