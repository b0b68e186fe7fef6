"""``plugins check --strict`` runs contract suites, and reports the knowledge that they lack."""

from __future__ import annotations

from collections.abc import Iterator

from lightx2v_core.api import KINDS, Plugin
from lightx2v_core.testing.contracts import SUITES
from lightx2v_devkit.audit.findings import Finding
from lightx2v_devkit.audit.suite_runs import readiness_findings, suite_findings

from .zeta import EXACT, HEAD, RIGHT, Look, only


def test_every_kind_has_a_suite() -> None:
    assert set(SUITES) == set(KINDS)
    assert all(suite.kind == kind for kind, suite in SUITES.items())


def test_a_kernel_that_keeps_its_contract(look: Look) -> None:
    found = look(EXACT.replace("SCALE", "scale") + RIGHT, contracts=True)
    assert [finding.level for finding in found] == ["note"]
    assert found[0].text.startswith("zeta: attention zeta-kernel: ")
    assert found[0].text.endswith(" checks of its contract passed")


def test_a_kernel_that_breaks_it(look: Look) -> None:
    broken, note = look(EXACT.replace("SCALE", "None") + RIGHT, contracts=True)
    assert broken.level == "error"
    assert "attention zeta-kernel breaks its contract: test_it_heeds_the_scale: AssertionError" in broken.text
    assert note.level == "note"


def suites(plugin: Plugin) -> Iterator[Finding]:
    return suite_findings(plugin, [plugin.name])


OWN = """
from lightx2v_core.testing.contracts import AttentionContract

class Loose(AttentionContract):
    use = "{use}"
    tolerance = {{"float32": 99.0, "float16": 99.0, "bfloat16": 99.0}}
"""


def test_a_plugin_may_know_more_of_its_contract(look: Look) -> None:
    """The scale is not heeded, and its own suite allows that."""
    modules = {
        "lightx2v_zeta/__init__.py": "",
        "lightx2v_zeta/plugin.py": HEAD + EXACT.replace("SCALE", "None") + RIGHT,
        "lightx2v_zeta/contracts.py": OWN.format(use="zeta-kernel"),
    }
    found = look(modules=modules, contracts=True)
    assert [finding.level for finding in found] == ["note"], found


def test_a_suite_of_something_else(look: Look) -> None:
    modules = {
        "lightx2v_zeta/__init__.py": "",
        "lightx2v_zeta/plugin.py": HEAD + EXACT.replace("SCALE", "scale") + RIGHT,
        "lightx2v_zeta/contracts.py": OWN.format(use="eta-kernel"),
    }
    only(
        look(modules=modules, part=suites),
        "error",
        "its contracts.Loose uses an implementation that the plugin does not have",
    )


def test_a_module_of_contracts_that_fails(look: Look) -> None:
    modules = {
        "lightx2v_zeta/__init__.py": "",
        "lightx2v_zeta/plugin.py": HEAD + RIGHT,
        "lightx2v_zeta/contracts.py": "import a_library_nobody_has",
    }
    only(
        look(modules=modules, part=suites),
        "error",
        "its contracts module cannot be used: ModuleNotFoundError",
    )


LOADER = """
from lightx2v_core.api import WeightLoaderSpec

@hookimpl
def lightx2v_weight_loaders():
    return [WeightLoaderSpec(name="zeta-files", summary="files", suffixes=(".zeta",), read_header=print, build=build)]
"""


def test_a_suite_that_has_to_be_told_something(look: Look) -> None:
    found = look(LOADER, part=readiness_findings)
    only(
        found,
        "warning",
        "weight_loader zeta-files",
        "its contract suite needs a writer of .zeta files",
        "the module contracts next to",
    )
