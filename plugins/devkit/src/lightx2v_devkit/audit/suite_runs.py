"""Runs of the contract suites for a plugin, by pytest in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from attrs import define, field

from lightx2v_core.api import Plugin, Provided
from lightx2v_devkit.audit.findings import Finding, error, note, warning
from lightx2v_devkit.audit.suite_knowledge import contracts_module, missing_knowledge

#: timeout of the suites of one plugin, in seconds
TIME = 1800
_MODULE = "from lightx2v_devkit.audit.suites import classes\n\nglobals().update(classes({name!r}))\n"


@define
class Outcome:
    """The results of the checks of one implementation."""

    passed: int = 0
    failed: list[str] = field(factory=list)
    skipped: list[str] = field(factory=list)


def readiness_findings(plugin: Plugin) -> Iterator[Finding]:
    """Report each implementation whose suite cannot run, without importing anything."""
    own = contracts_module(plugin)
    for provided in plugin.provides:
        missing = missing_knowledge(provided.spec)
        if missing and own is None:
            yield _untold(plugin, provided, missing)


def suite_findings(plugin: Plugin, loaded: Sequence[str]) -> Iterator[Finding]:
    """Run the suites of all implementations of a plugin. ``loaded`` are the names of the loaded plugins."""
    if not plugin.provides:
        return
    if find_spec("pytest") is None:
        yield warning(plugin.name, "its contract suites were not run: pytest is missing; pip install pytest")
        return
    try:
        from lightx2v_devkit.audit.suites import suites, unknown_uses

        ready = suites(plugin)
        unknown = unknown_uses(plugin)
    except Exception as exc:  # raised by the plugin's contracts module
        yield error(plugin.name, f"its contracts module cannot be used: {type(exc).__name__}: {exc}")
        return
    for name in unknown:
        yield error(plugin.name, f"its contracts.{name} uses an implementation that the plugin does not have")
    covered = {id(provided) for provided, _ in ready.values()}
    if contracts_module(plugin) is not None:
        for provided in plugin.provides:
            if id(provided) not in covered:
                yield _untold(plugin, provided, missing_knowledge(provided.spec))
    if not ready:
        return
    try:
        outcomes = _outcomes(plugin.name, loaded)
    except (RuntimeError, subprocess.TimeoutExpired) as exc:
        yield error(plugin.name, f"its contract suites could not be run: {exc}")
        return
    for key, (provided, _) in ready.items():
        what = f"{provided.kind} {provided.spec.name}"
        outcome = outcomes.get(key, Outcome())
        for text in outcome.failed:
            yield error(plugin.name, f"{what} breaks its contract: {text}")
        skipped = f", {len(outcome.skipped)} skipped: {outcome.skipped[0]}" if outcome.skipped else ""
        yield note(plugin.name, f"{what}: {outcome.passed} checks of its contract passed{skipped}")


def _untold(plugin: Plugin, provided: Provided, missing: str) -> Finding:
    return warning(
        plugin.name,
        f"{provided.kind} {provided.spec.name}: its contract suite needs {missing}; add a class to the module "
        f"contracts next to {plugin.module}",
    )


def _outcomes(name: str, loaded: Sequence[str]) -> dict[str, Outcome]:
    """Run the suites and return the outcome of each class. Raises ``RuntimeError`` if pytest collects nothing."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIGHTX2V_", "PYTEST_"))}
    path = os.pathsep.join(folder for folder in sys.path if folder)
    switches = {
        "PYTHONPATH": path,
        "LIGHTX2V_PLUGINS": ",".join(loaded),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with tempfile.TemporaryDirectory(prefix="lightx2v-contracts-") as work:
        folder = Path(work)
        (folder / "test_contracts.py").write_text(_MODULE.format(name=name), encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        report = folder / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", f"--junitxml={report}", "."],
            cwd=folder, env={**kept, **switches}, capture_output=True, text=True, check=False, timeout=TIME,
        )  # fmt: skip
        if done.returncode not in (0, 1) or not report.is_file():
            last = (done.stdout + done.stderr).strip().splitlines()[-3:]
            raise RuntimeError(" ".join(last) or f"pytest ended with status {done.returncode}")
        return _read(report)


def _read(report: Path) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = outcomes.setdefault(case.attrib["classname"].rpartition(".")[2], Outcome())
        result = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if result is None:
            outcome.passed += 1
            continue
        message = " ".join(result.attrib.get("message", "").split())
        if result.tag == "skipped":
            outcome.skipped.append(message)
        else:
            outcome.failed.append(f"{case.attrib['name']}: {message}")
    return outcomes
