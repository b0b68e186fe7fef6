"""Checks of the metadata of a plugin's distribution, and whether it is up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from lightx2v_core.api import Plugin
from lightx2v_devkit.audit.findings import Finding, error, warning
from lightx2v_devkit.distributions import (
    CORE_DIST,
    GROUP,
    canonical,
    name_of,
    origin_of,
    requirements,
    version_of,
)

_PREFIX = "lightx2v-"
_ENTRY_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_UPPER, _LOWER = {"<", "<=", "==", "===", "~="}, {">", ">=", "==", "===", "~="}


def packaging_findings(plugin: Plugin) -> Iterator[Finding]:
    """Report all problems in the metadata of a plugin's distribution."""
    yield from _module(plugin)
    dist = plugin.dist
    if dist is None or not name_of(dist):
        yield error(plugin.name, "the metadata of its distribution cannot be read; reinstall it")
        return
    yield from _names(plugin, dist)
    yield from _core_requirement(plugin, dist)
    about = dist.metadata
    if not version_of(dist):
        yield error(plugin.name, f"{name_of(dist)} has no version")
    if about["Summary"] in (None, "", "UNKNOWN"):
        yield warning(plugin.name, "its metadata has no summary: set description in [project]")
    classifiers = about.get_all("Classifier") or ()
    licensed = (
        about["License-Expression"]
        or about["License"]
        or any(c.startswith("License ::") for c in classifiers)
    )
    if not licensed:
        yield warning(plugin.name, "its metadata has no license: set license in [project]")
    yield from _source(plugin, dist)


def _module(plugin: Plugin) -> Iterator[Finding]:
    """Report an entry point whose module is missing, for example after deleting or renaming files by hand."""
    module = plugin.module.partition(":")[0]
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    except Exception:  # its parent package fails to import; the loader has reported that
        return
    if spec is None:
        yield error(
            plugin.name,
            f"the entry point of {plugin.dist_name} names the missing module {module!r}, which was removed or renamed "
            f"without pip; reinstall {plugin.dist_name}, or pip uninstall {plugin.dist_name}",
        )


def _names(plugin: Plugin, dist: metadata.Distribution) -> Iterator[Finding]:
    if not _ENTRY_NAME.fullmatch(plugin.name):
        yield warning(
            plugin.name,
            "the name of its entry point is hard to type; use lower-case letters, digits and hyphens",
        )
    name = canonical(name_of(dist))
    others = [entry.name for entry in dist.entry_points if entry.group == GROUP]
    agreed = name.removeprefix(_PREFIX)
    if name.startswith(_PREFIX) and agreed not in map(canonical, others):
        yield warning(
            plugin.name,
            f"its distribution is {name_of(dist)}, but it has no entry point {agreed!r}; users expect matching "
            "names",
        )


def _core_requirement(plugin: Plugin, dist: metadata.Distribution) -> Iterator[Finding]:
    """Report a missing version range of the core, which prevents loading the plugin into an unsupported core."""
    advice = f'write "{CORE_DIST}>=0.1,<0.2" with the versions it was tested with'
    needs = []
    for text in requirements(dist):
        try:
            need = Requirement(text)
        except InvalidRequirement as exc:
            yield error(plugin.name, f"its requirement {text!r} is invalid: {exc}")
            continue
        if canonical(need.name) == CORE_DIST and (need.marker is None or need.marker.evaluate({"extra": ""})):
            needs.append(need)
    if not needs:
        yield warning(plugin.name, f"it does not require {CORE_DIST}: {advice}")
    for need in needs:
        signs = {clause.operator for clause in need.specifier}
        missing = [word for word, ones in (("lower", _LOWER), ("upper", _UPPER)) if not signs & ones]
        if missing and need.url is None:
            yield warning(
                plugin.name,
                f"its requirement {str(need)!r} has no {' and no '.join(missing)} limit: {advice}",
            )


def _source(plugin: Plugin, dist: metadata.Distribution) -> Iterator[Finding]:
    """Report a source folder of an editable installation that moved or changed since."""
    folder = editable_folder(dist)
    if folder is None:
        return
    project = _project(folder)
    if project is None:
        yield error(
            plugin.name,
            f"{name_of(dist)} was installed from {folder}, which is no longer a project; install it from its new "
            f"location, or pip uninstall {name_of(dist)}",
        )
        return
    again = f"; pip install -e {folder}"
    if canonical(str(project.get("name", ""))) != canonical(name_of(dist)):
        yield warning(
            plugin.name,
            f"{folder} is {project.get('name')!r} now, not {name_of(dist)!r}{again}",
        )
    version = project.get("version")
    if isinstance(version, str) and version != version_of(dist):
        yield warning(
            plugin.name, f"its metadata has version {version_of(dist)}, its pyproject.toml {version}{again}"
        )
    stated = project.get("entry-points", {}).get(GROUP, {})
    installed = {entry.name: entry.value for entry in dist.entry_points if entry.group == GROUP}
    if stated and stated != installed:
        yield warning(
            plugin.name, f"its entry points are {installed}, but {stated} in its pyproject.toml{again}"
        )


def editable_folder(dist: metadata.Distribution) -> Path | None:
    """Return the source folder of an editable installation; None for other installations."""
    origin = origin_of(dist)
    folder = origin.get("dir_info")
    if not isinstance(folder, dict) or not folder.get("editable"):
        return None
    url = urlsplit(str(origin.get("url", "")))
    return Path(unquote(url.path)) if url.scheme == "file" else None


def _project(folder: Path) -> Mapping[str, Any] | None:
    """Read ``[project]`` of a folder; ``{}`` if it cannot be read, ``None`` if the folder is not a project."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        return {} if (folder / "setup.py").is_file() else None
    if find_spec("tomllib") is None:  # new in Python 3.11
        return {}
    tomllib = import_module("tomllib")
    try:
        project: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (ValueError, OSError):
        return {}
    return project
