"""Plugin sets of given specs and modules, for tests that must not depend on installed plugins."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from lightx2v_core.discovery.plugins import PluginSet, collected
from lightx2v_core.spec.hooks import KINDS, hookimpl
from lightx2v_core.spec.specs import Spec


def plugin_set(*specs: Spec[Any], name: str = "given", **plugins: ModuleType | Spec[Any]) -> PluginSet:
    """Build a set of the core's implementations and the given ones, ignoring installed plugins.

    ``specs`` belong to one plugin called ``name``; each keyword is a plugin with its module or its only spec. They are
    checked as at discovery; problems raise.
    """
    modules = {name: _module(name, specs)} if specs else {}
    for plugin, given in plugins.items():
        modules[plugin] = given if isinstance(given, ModuleType) else _module(plugin, (given,))
    return collected(modules)


def _module(name: str, specs: tuple[Spec[Any], ...]) -> ModuleType:
    """Create a plugin module whose hooks return ``specs``."""
    module = ModuleType(name)
    for hook, spec_type in KINDS.values():
        mine = [spec for spec in specs if isinstance(spec, spec_type)]
        if mine:
            setattr(module, hook, hookimpl(_returning(mine)))
    return module


def _returning(specs: list[Any]) -> Callable[[], list[Any]]:
    return lambda: specs
