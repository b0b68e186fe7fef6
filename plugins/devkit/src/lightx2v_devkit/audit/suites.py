"""The contract suites of a plugin's implementations, collected for a run of pytest. Needs pytest.

The module ``contracts`` of a plugin's package provides what a suite needs to know: a writer for its files, the inputs
of its tasks, the tolerance of its kernel. Its classes replace the plain suites of the implementations they ``use``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module

from lightx2v_core.api import CommandSpec, Plugin, Provided, load_plugins
from lightx2v_core.testing.contracts import SUITES, Contract
from lightx2v_devkit.audit.suite_knowledge import contracts_module, missing_knowledge


def suites(plugin: Plugin) -> dict[str, tuple[Provided, type[Contract]]]:
    """Collect the suites: class name -> implementation and suite, one or more per implementation that has one."""
    own = list(_own(plugin))
    by_name: dict[str, tuple[Provided, type[Contract]]] = {}
    for number, provided in enumerate(plugin.provides):
        stated = [
            suite
            for suite in own
            if suite.kind == provided.kind and suite.use in (provided.spec.name, provided.qualified)
        ]
        plain = (
            [SUITES[provided.kind]]
            if provided.kind in SUITES and not missing_knowledge(provided.spec)
            else []
        )
        for turn, suite in enumerate(stated or plain):
            name = f"Test{number}x{turn}"
            members: dict[str, str | None] = {"use": provided.qualified, "__module__": __name__}
            if isinstance(provided.spec, CommandSpec):
                members["parent"] = provided.spec.parent
            by_name[name] = (provided, type(name, (suite,), members))
    return by_name


def unknown_uses(plugin: Plugin) -> list[str]:
    """List the classes of the plugin's contracts module whose ``use`` it does not provide."""
    names = {
        (provided.kind, name)
        for provided in plugin.provides
        for name in (provided.spec.name, provided.qualified)
    }
    return [suite.__name__ for suite in _own(plugin) if (suite.kind, suite.use) not in names]


def classes(name: str) -> Mapping[str, type[Contract]]:
    """Return the test classes of an installed plugin, for the module that pytest collects."""
    return {key: suite for key, (_, suite) in suites(load_plugins()[name]).items()}


def _own(plugin: Plugin) -> Iterator[type[Contract]]:
    """Yield the classes with a ``use`` in the module ``contracts`` next to the entry module."""
    name = contracts_module(plugin)
    if name is None:
        return
    module = import_module(name)
    for value in vars(module).values():
        ours = inspect.isclass(value) and issubclass(value, Contract) and value.__module__ == module.__name__
        if ours and hasattr(value, "use"):
            yield value
