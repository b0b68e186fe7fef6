"""Overlay of values on an existing configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve, fields

from lightx2v_core.config.declared import COMPONENT_SECTIONS
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig, load_config
from lightx2v_core.config.model import RunConfig
from lightx2v_core.config.structure import unstructure
from lightx2v_core.errors import ConfigError

#: the keys of a configuration, and those that affect each other
_KEYS = frozenset(attribute.name for attribute in fields(RunConfig))
_TOGETHER = frozenset({"components", *COMPONENT_SECTIONS})


def lay_over(base: LoadedConfig, values: Iterable[Value]) -> LoadedConfig:
    """Overlay values on a configuration, as ``load_config`` does on its data.

    Only the changed keys are structured; the others are already valid.
    """
    values = list(values)
    keys = {value.path[0] for value in values}
    if keys & _TOGETHER:
        keys |= _TOGETHER
    if keys <= _KEYS:
        try:
            laid = load_config({key: unstructure(getattr(base.config, key)) for key in keys}, values)
        except ConfigError:
            pass  # load_config below reports on the whole configuration
        else:
            changed: dict[str, Any] = {key: getattr(laid.config, key) for key in keys}
            return evolve(laid, config=evolve(base.config, **changed))
    return load_config(base.to_json(), values)
