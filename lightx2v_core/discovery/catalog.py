"""The catalog of first-party distributions, installed or not, for messages about missing implementations.

``catalog.json`` is generated from the plugins (``python tests/test_catalog.py``); this module knows none of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypedDict


class CatalogEntry(TypedDict, total=False):
    """The catalog entry of an implementation."""

    distribution: str
    #: extra of the core
    extra: str
    #: name of the implementation, which differs from the key for aliases
    name: str
    #: weight loaders: suffixes of files
    suffixes: list[str]
    #: quantizers: formats
    formats: list[str]
    #: models: tasks
    tasks: list[str]
    #: option -> its values, for options with a closed set of values
    options: dict[str, list[str]]
    #: commands; ``needs`` lists required modules besides the plugin's own
    summary: str
    module: str
    needs: list[str]


def provider(kind: str, name: str) -> str:
    """Return a message with the ``pip install`` command for an implementation; empty if no distribution has it."""
    entry = _catalog().get(kind, {}).get(name)
    if entry is None:
        return ""
    return f"{kind} {name!r} is provided by {entry['distribution']}: pip install {install(entry)}"


def reader(suffix: str) -> str:
    """Return a message with the ``pip install`` command for a loader of a suffix; empty if no distribution has one."""
    for entry in _catalog().get("weight_loader", {}).values():
        if suffix in entry["suffixes"]:
            return f"{entry['distribution']} reads {suffix} files: pip install {install(entry)}"
    return ""


def distribution(kind: str, name: str) -> str:
    """Return the first-party distribution of an implementation; empty if none has it."""
    entry = _catalog().get(kind, {}).get(name)
    return "" if entry is None else entry["distribution"]


def first_party(kind: str) -> dict[str, str]:
    """Map the first-party implementations of a kind, installed or not, to their distributions."""
    return {name: str(entry["distribution"]) for name, entry in _catalog().get(kind, {}).items()}


def tasks() -> list[str]:
    """Return the tasks of all first-party models."""
    return list(
        dict.fromkeys(task for entry in _catalog().get("model", {}).values() for task in entry["tasks"])
    )


def values(kind: str, option: str) -> list[str]:
    """Return all values of an option with a closed set of values, among the implementations of a kind."""
    sets = [entry["options"].get(option, ()) for entry in _catalog().get(kind, {}).values()]
    return list(dict.fromkeys(value for values in sets for value in values))


def quantizers() -> dict[str, CatalogEntry]:
    """Return the entries of all first-party quantizers by name, with their ``formats`` and distributions."""
    return dict(_catalog().get("quantizer", {}))


def ways(kind: str) -> list[str]:
    """Return a line for each distribution with implementations of a kind: their names, and how to install it."""
    return missing(kind, ())


def missing(kind: str, installed: Iterable[str]) -> list[str]:
    """Return a line for each distribution with implementations of a kind, none of which is in ``installed``."""
    there = set(installed)
    return [
        f"{distribution} provides {', '.join(names)}: pip install {install(entry)}"
        for distribution, (names, entry) in _by_distribution(kind).items()
        if not there & set(names)
    ]


def _by_distribution(kind: str) -> dict[str, tuple[list[str], CatalogEntry]]:
    """Group the implementations of a kind by distribution: their names, and one of the entries."""
    brought: dict[str, tuple[list[str], CatalogEntry]] = {}
    for name, entry in sorted(_catalog().get(kind, {}).items()):
        if name == entry["name"]:
            brought.setdefault(entry["distribution"], ([], entry))[0].append(name)
    return dict(sorted(brought.items()))


def commands() -> dict[str, CatalogEntry]:
    """Return the entries of first-party subcommands by full name, such as ``ui`` or ``plugins check``.

    Each has the distribution, the summary, the module of the plugin, and other modules that it needs.
    """
    return dict(sorted(_catalog().get("command", {}).items()))


def install(entry: CatalogEntry) -> str:
    """Return the arguments of ``pip install`` for an entry.

    In a checkout these are the folders of the plugin and its companions, which may not be on an index; otherwise the
    extra of the core.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = _checked_out(root, entry["extra"])
    if not folders:
        return f"'lightx2v-core[{entry['extra']}]'"
    here = "" if os.path.realpath(".") == os.path.realpath(root) else root
    return " ".join(f"-e {shlex.quote(os.path.join(here, 'plugins', folder))}" for folder in folders)


_REQUIREMENT = r'"lightx2v-([a-z0-9-]+)(\[[a-z0-9,-]+\])?[>=<]'


def _checked_out(root: str, extra: str) -> list[str]:
    """Return the folders in a checkout for an extra of the core, each with its own extras, such as ``gradio[page]``.

    Companions and requirements come first, then the plugin. Empty outside a checkout.
    """
    own, first = "", []
    for name, extras in re.findall(_REQUIREMENT, _line(os.path.join(root, "pyproject.toml"), extra)):
        if name == extra:
            own = f"{_folder(name)}{extras}"
        else:
            first += [*_needed(root, name), f"{_folder(name)}{extras}"]
    if not own or not os.path.exists(os.path.join(root, "plugins", _folder(extra), "pyproject.toml")):
        return []
    return list(dict.fromkeys([*first, *_needed(root, extra), own]))


def _needed(root: str, plugin: str) -> list[str]:
    """Return the folders of the plugins that a plugin needs, in a checkout."""
    needs = _read(os.path.join(root, "plugins", _folder(plugin), "pyproject.toml"))
    names = re.findall(r'^    "lightx2v-([a-z0-9-]+)[>=<]', needs, re.MULTILINE)
    return [folder for name in names if name != "core" for folder in (*_needed(root, name), _folder(name))]


def _line(file: str, extra: str) -> str:
    """Return the line of a ``pyproject.toml`` that defines an extra; empty if there is none."""
    match = re.search(rf"^{re.escape(extra)} = \[.*$", _read(file), re.MULTILINE)
    return match[0] if match else ""


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as text:
            return text.read()
    except OSError:
        return ""


def _folder(name: str) -> str:
    return name.replace("-", "_")


@lru_cache(maxsize=1)
def _catalog() -> Mapping[str, Mapping[str, CatalogEntry]]:
    # importlib.resources would add a fifth of click's import time to every start
    with open(os.path.join(os.path.dirname(__file__), "catalog.json"), encoding="utf-8") as file:
        kinds: Mapping[str, Mapping[str, CatalogEntry]] = json.load(file)
    return kinds
