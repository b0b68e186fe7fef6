"""Duplicate distributions, and remains of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata

from lightx2v_core.api import PluginSet
from lightx2v_devkit.audit.findings import Finding
from lightx2v_devkit.distributions import canonical, installed_twice, name_of, version_of


def place_findings(plugins: PluginSet) -> Iterator[Finding]:
    """Report all duplicates on the path: the first one wins, which is not necessarily the last one installed."""
    by_dist: dict[str, list[str]] = {}
    for plugin in plugins.plugins:
        by_dist.setdefault(canonical(plugin.dist_name), []).append(plugin.name)
    for name, where in installed_twice().items():
        yield Finding(
            level="error",
            text=f"{name} is found {len(where)} times on the path, {where[0]} wins: {', '.join(where)}",
            plugins=tuple(by_dist.get(name, ())),
        )
    yield from _same_folder(by_dist)


def _same_folder(by_dist: dict[str, list[str]]) -> Iterator[Finding]:
    """Report several versions of metadata in one folder, and folders that pip renamed but could not remove."""
    versions_at: dict[tuple[str, str], list[str]] = {}
    for dist in metadata.distributions():
        name, place = canonical(name_of(dist)), os.path.realpath(str(dist.locate_file("")))
        info = os.path.basename(str(getattr(dist, "_path", "")))
        if name not in by_dist:
            continue
        if info.startswith("~"):
            yield Finding(
                level="warning",
                text=f"{os.path.join(place, info)} was left behind by an interrupted pip; remove it",
                plugins=tuple(by_dist[name]),
            )
        else:
            versions = versions_at.setdefault((name, place), [])
            if version_of(dist) not in versions:
                versions.append(version_of(dist))
    for (name, place), versions in versions_at.items():
        if len(versions) > 1:
            yield Finding(
                level="error",
                text=f"{place} has metadata of {name} {' and '.join(sorted(versions))}; "
                f"repeat pip uninstall {name} until it is removed, then reinstall it",
                plugins=tuple(by_dist[name]),
            )
