"""Options of implementations, as a configuration makes them of what somebody writes."""

from __future__ import annotations

from typing import Any, TypeVar

from lightx2v_core.config.schema import options_schema
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.discovery.isolation import called

C = TypeVar("C")


def default_options(config: type[C]) -> C:
    """Make the options of an implementation that is asked for by its name alone.

    ``ConfigError`` or another error for users passes; ``PluginFault`` says what else the class raised.
    """
    return called(config.__name__, config)


def survives_a_file(options: Any) -> bool:
    """Write options into a configuration and read them again; whether they are the same. Makes their JSON Schema too.

    ``ConfigError`` when what was written is refused, ``PluginFault`` when the class cannot be read from a file at all.
    """
    config = type(options)
    same = called(config.__name__, lambda: bool(structure(unstructure(options), config) == options))
    called(config.__name__, options_schema, config)
    return same
