"""All checks of plugins, with their findings in one list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from lightx2v_core.api import Plugin, PluginSet
from lightx2v_devkit.audit.duplicates import place_findings
from lightx2v_devkit.audit.findings import Finding
from lightx2v_devkit.audit.hook_checks import hook_findings
from lightx2v_devkit.audit.import_checks import start_findings
from lightx2v_devkit.audit.metadata_checks import packaging_findings
from lightx2v_devkit.audit.spec_checks import clash_findings, spec_findings
from lightx2v_devkit.audit.suite_runs import readiness_findings, suite_findings
from lightx2v_devkit.distributions import CORE


def audit(
    plugins: PluginSet,
    *,
    name: str | None = None,
    commands: Collection[str] = (),
    contracts: bool = False,
    tell: Callable[[str], None] = lambda _text: None,
) -> list[Finding]:
    """Check all enabled plugins, or the one called ``name``.

    ``commands`` are those of the core. ``contracts`` also runs the contract suites, which takes seconds to minutes.
    ``tell`` is called with the name of each plugin before its checks. Raises ``PluginError`` for an unknown name.
    """
    asked = plugins.plugins if name is None else (plugins[name],)
    loaded = [plugin.name for plugin in plugins.plugins if plugin.state == "loaded" and plugin.name != CORE]
    findings = list(_states(plugins))
    findings += clash_findings(plugins, commands)
    findings += place_findings(plugins)
    if name is not None:
        findings = [finding for finding in findings if asked[0].name in finding.plugins]
    for plugin in asked:
        if plugin.state != "disabled":
            tell(plugin.name)
            findings += _one(plugin, loaded, contracts=contracts)
    return findings


def _states(plugins: PluginSet) -> Iterator[Finding]:
    """Report every plugin that failed to load, with the warning that all commands show."""
    failed = [plugin for plugin in plugins.plugins if plugin.state in ("broken", "incompatible")]
    for plugin, text in zip(failed, plugins.warnings, strict=True):
        yield Finding(level="error", text=text, plugins=(plugin.name,))


def _one(plugin: Plugin, loaded: list[str], *, contracts: bool) -> Iterator[Finding]:
    if plugin.name != CORE:
        yield from packaging_findings(plugin)
        yield from hook_findings(plugin)
    if plugin.state == "loaded":
        yield from start_findings(plugin)
        yield from spec_findings(plugin)
        yield from readiness_findings(plugin)
        if contracts:
            yield from suite_findings(plugin, loaded)
