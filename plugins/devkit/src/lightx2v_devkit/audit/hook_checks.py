"""Checks of the hooks in a plugin's module."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lightx2v_core.api import KINDS, Plugin, hookimpl, suggestion
from lightx2v_devkit.audit.findings import Finding, error, warning

_HOOKS: Mapping[str, type[Any]] = dict(KINDS.values())


def marks_of(function: Any) -> Mapping[str, Any] | None:
    """Return the options that ``hookimpl`` recorded on a function; None if it is not marked."""
    marks: Mapping[str, Any] | None = getattr(function, f"{hookimpl.project_name}_impl", None)
    return marks


def hook_findings(plugin: Plugin) -> Iterator[Finding]:
    """Report every invalid hook; the loader stops at the first."""
    module = sys.modules.get(plugin.module.partition(":")[0])
    if module is None:  # it could not be imported; the loader has reported that
        return
    for name, value in list(vars(module).items()):
        if not callable(value):
            continue
        marks = marks_of(value)
        if marks is not None:
            yield from _marked(plugin, name, value, optional=bool(marks.get("optionalhook")))
        elif name in _HOOKS or (getattr(value, "__module__", "") == module.__name__ and _near(name)):
            meant = "" if name in _HOOKS else suggestion(name, _HOOKS)
            yield warning(plugin.name, f"{name} is not marked with @hookimpl, so it is never called{meant}")


def _marked(plugin: Plugin, name: str, function: Any, *, optional: bool) -> Iterator[Finding]:
    if name not in _HOOKS:
        if not optional:
            yield error(plugin.name, f"there is no hook {name!r}{suggestion(name, _HOOKS)}")
        return
    takes = [str(parameter) for parameter in inspect.signature(function).parameters.values()]
    if takes:
        given = f"list[{_HOOKS[name].__name__}[...]]"
        yield error(
            plugin.name,
            f"{name}({', '.join(takes)}): hooks take no arguments; write def {name}() -> {given}; options and "
            "context are passed to the functions of its specs",
        )


def _near(name: str) -> bool:
    return name.startswith("lightx2v_") and bool(suggestion(name, _HOOKS))
