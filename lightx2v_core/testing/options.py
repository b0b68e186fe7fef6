"""Options of implementations, built as a configuration builds them."""

from __future__ import annotations

from typing import Any, TypeVar

from lightx2v_core.config.schema import options_schema
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.discovery.isolation import called

C = TypeVar("C")


def default_options(config: type[C]) -> C:
    """Build the default options of an implementation.

    Errors for users, such as ``ConfigError``, pass through. Raises ``PluginFault`` for other exceptions of the class.
    """
    return called(config.__name__, config)


def survives_a_file(options: Any) -> bool:
    """Return whether options stay equal when written to a configuration and read back. Also builds their JSON Schema.

    Raises ``ConfigError`` if the written options are invalid, ``PluginFault`` if the class cannot be read from files.
    """
    config = type(options)
    same = called(config.__name__, lambda: bool(structure(unstructure(options), config) == options))
    called(config.__name__, options_schema, config)
    return same
