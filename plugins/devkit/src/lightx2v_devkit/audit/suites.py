"""The contract suites of what a plugin brings, collected for a run of pytest. Needs pytest.

A plugin says in a module ``contracts`` of its package what a suite cannot know by itself: how its files are written,
what its tasks start from, how much its kernel rounds. These classes stand in for the plain suites of what they ``use``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module

from lightx2v_core.api import CommandSpec, Plugin, Provided, load_plugins
from lightx2v_core.testing.contracts import SUITES, Contract
from lightx2v_devkit.audit.suite_knowledge import contracts_module, missing_knowledge


def suites(plugin: Plugin) -> dict[str, tuple[Provided, type[Contract]]]:
    """Class name -> what it is about and the suite: one or more for each implementation that has one."""
    own = list(_own(plugin))
    found: dict[str, tuple[Provided, type[Contract]]] = {}
    for number, item in enumerate(plugin.provides):
        given = [
            suite
            for suite in own
            if suite.kind == item.kind and suite.use in (item.spec.name, item.qualified)
        ]
        plain = [SUITES[item.kind]] if item.kind in SUITES and not missing_knowledge(item.spec) else []
        for turn, suite in enumerate(given or plain):
            name = f"Test{number}x{turn}"
            members: dict[str, str | None] = {"use": item.qualified, "__module__": __name__}
            if isinstance(item.spec, CommandSpec):
                members["parent"] = item.spec.parent
            found[name] = (item, type(name, (suite,), members))
    return found


def unknown_uses(plugin: Plugin) -> list[str]:
    """The classes of the plugin's own module that are about nothing that it brings."""
    names = {(item.kind, name) for item in plugin.provides for name in (item.spec.name, item.qualified)}
    return [suite.__name__ for suite in _own(plugin) if (suite.kind, suite.use) not in names]


def classes(name: str) -> Mapping[str, type[Contract]]:
    """The test classes of an installed plugin, for the module that pytest collects."""
    return {key: suite for key, (_, suite) in suites(load_plugins()[name]).items()}


def _own(plugin: Plugin) -> Iterator[type[Contract]]:
    """The classes with a ``use`` in the module ``contracts`` beside the entry module."""
    name = contracts_module(plugin)
    if name is None:
        return
    module = import_module(name)
    for value in vars(module).values():
        ours = inspect.isclass(value) and issubclass(value, Contract) and value.__module__ == module.__name__
        if ours and hasattr(value, "use"):
            yield value
