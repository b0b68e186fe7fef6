"""What the distribution of a plugin says of itself, and whether that is still true."""

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
    """What is wrong with the metadata of a plugin's distribution."""
    yield from _module(plugin)
    dist = plugin.dist
    if dist is None or not name_of(dist):
        yield error(plugin.name, "the metadata of its distribution cannot be read; install it again")
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
        yield warning(plugin.name, "its metadata names no licence: set license in [project]")
    yield from _source(plugin, dist)


def _module(plugin: Plugin) -> Iterator[Finding]:
    """An entry point outlives its package when files are deleted by hand, and when a package is renamed in place."""
    module = plugin.module.partition(":")[0]
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    except Exception:  # its parent package fails to import, which the loader has said
        return
    if spec is None:
        yield error(
            plugin.name,
            f"the entry point of {plugin.dist_name} names the module {module!r}, which is not there: it was removed or "
            f"renamed behind pip's back; install {plugin.dist_name} again, or pip uninstall {plugin.dist_name}",
        )


def _names(plugin: Plugin, dist: metadata.Distribution) -> Iterator[Finding]:
    if not _ENTRY_NAME.fullmatch(plugin.name):
        yield warning(
            plugin.name,
            "its entry point has a name that is hard to ask for; use lower-case letters, digits and hyphens",
        )
    name = canonical(name_of(dist))
    others = [entry.name for entry in dist.entry_points if entry.group == GROUP]
    agreed = name.removeprefix(_PREFIX)
    if name.startswith(_PREFIX) and agreed not in map(canonical, others):
        yield warning(
            plugin.name,
            f"its distribution is {name_of(dist)}, and no entry point of it is called {agreed!r}: people look for one "
            "by the other",
        )


def _core_requirement(plugin: Plugin, dist: metadata.Distribution) -> Iterator[Finding]:
    """A range of versions of the core is what keeps a plugin from being loaded into a core it was not made for."""
    advice = f'write "{CORE_DIST}>=0.1,<0.2" with the versions that it was tested with'
    needs = []
    for text in requirements(dist):
        try:
            need = Requirement(text)
        except InvalidRequirement as exc:
            yield error(plugin.name, f"its requirement {text!r} cannot be read: {exc}")
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
    """What an editable installation was made from may have moved, or say other things by now."""
    folder = editable_folder(dist)
    if folder is None:
        return
    project = _project(folder)
    if project is None:
        yield error(
            plugin.name,
            f"{name_of(dist)} was installed from {folder}, which is no project any more; install it from where it is "
            f"now, or pip uninstall {name_of(dist)}",
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
            plugin.name, f"its metadata says version {version_of(dist)}, its pyproject.toml {version}{again}"
        )
    stated = project.get("entry-points", {}).get(GROUP, {})
    installed = {entry.name: entry.value for entry in dist.entry_points if entry.group == GROUP}
    if stated and stated != installed:
        yield warning(
            plugin.name, f"its entry points are {installed}, and in its pyproject.toml {stated}{again}"
        )


def editable_folder(dist: metadata.Distribution) -> Path | None:
    """The folder of an editable installation."""
    origin = origin_of(dist)
    folder = origin.get("dir_info")
    if not isinstance(folder, dict) or not folder.get("editable"):
        return None
    url = urlsplit(str(origin.get("url", "")))
    return Path(unquote(url.path)) if url.scheme == "file" else None


def _project(folder: Path) -> Mapping[str, Any] | None:
    """``[project]`` of a folder; ``{}`` where it cannot be read, ``None`` where there is none."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        return {} if (folder / "setup.py").is_file() else None
    if find_spec("tomllib") is None:  # it comes with Python 3.11
        return {}
    tomllib = import_module("tomllib")
    try:
        project: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (ValueError, OSError):
        return {}
    return project
