"""The options of every command: which plugins are loaded, and ``--debug``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from lightx2v_core.discovery.plugins import PluginSet, load_plugins

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


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
