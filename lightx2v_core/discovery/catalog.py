"""What first-party distributions bring, whether they are installed or not: for messages about what is missing.

``catalog.json`` is written from the plugins themselves (``python tests/test_catalog.py``); nothing here knows any
of them.
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
    """What the catalog says of an implementation."""

    distribution: str
    #: of the core
    extra: str
    #: the implementation's own name, for an entry under another name of it
    name: str
    #: of weight files
    suffixes: list[str]
    #: of a quantizer
    formats: list[str]
    #: of a model
    tasks: list[str]
    #: option -> its values, where these are a closed set
    options: dict[str, list[str]]
    #: of a command; ``needs`` are the modules that it needs beside the plugin's own
    summary: str
    module: str
    needs: list[str]


def provider(kind: str, name: str) -> str:
    """Say how to get an implementation that no installed plugin has; empty when nobody is known to have it."""
    entry = _catalog().get(kind, {}).get(name)
    if entry is None:
        return ""
    return f"{kind} {name!r} is provided by {entry['distribution']}: pip install {install(entry)}"


def reader(suffix: str) -> str:
    """Say how to get a loader of files that end so, in words; empty when nobody is known to have one."""
    for entry in _catalog().get("weight_loader", {}).values():
        if suffix in entry["suffixes"]:
            return f"{entry['distribution']} reads {suffix} files: pip install {install(entry)}"
    return ""


def distribution(kind: str, name: str) -> str:
    """Return the first-party distribution that brings an implementation; empty when none does."""
    entry = _catalog().get(kind, {}).get(name)
    return "" if entry is None else entry["distribution"]


def first_party(kind: str) -> dict[str, str]:
    """Return what the distributions of this project bring of a kind, installed or not: name -> distribution."""
    return {name: str(entry["distribution"]) for name, entry in _catalog().get(kind, {}).items()}


def tasks() -> list[str]:
    """Return the tasks that models of some distribution do."""
    return list(
        dict.fromkeys(task for entry in _catalog().get("model", {}).values() for task in entry["tasks"])
    )


def values(kind: str, option: str) -> list[str]:
    """Return the values that an option with a closed set of them has, among the implementations of a kind."""
    sets = [entry["options"].get(option, ()) for entry in _catalog().get(kind, {}).values()]
    return list(dict.fromkeys(value for values in sets for value in values))


def quantizers() -> dict[str, CatalogEntry]:
    """Return the quantizers that some distribution brings: name -> the ``formats`` that it takes, and how it is asked
    for."""
    return dict(_catalog().get("quantizer", {}))


def ways(kind: str) -> list[str]:
    """Return a line for each distribution that brings something of a kind: what, and how to install it."""
    return missing(kind, ())


def missing(kind: str, installed: Iterable[str]) -> list[str]:
    """Return a line for each distribution that brings something of a kind that is not among the ``installed`` names."""
    there = set(installed)
    return [
        f"{distribution} brings {', '.join(names)}: pip install {install(entry)}"
        for distribution, (names, entry) in _by_distribution(kind).items()
        if not there & set(names)
    ]


def _by_distribution(kind: str) -> dict[str, tuple[list[str], CatalogEntry]]:
    """Distribution -> what it brings of a kind, and how it is asked for."""
    brought: dict[str, tuple[list[str], CatalogEntry]] = {}
    for name, entry in sorted(_catalog().get(kind, {}).items()):
        if name == entry["name"]:
            brought.setdefault(entry["distribution"], ([], entry))[0].append(name)
    return dict(sorted(brought.items()))


def commands() -> dict[str, CatalogEntry]:
    """Return the subcommands that first-party plugins bring: full name, such as ``ui`` or ``plugins check`` ->
    distribution, summary, the plugin's module, and modules that it needs besides."""
    return dict(sorted(_catalog().get("command", {}).items()))


def install(entry: CatalogEntry) -> str:
    """Say what pip is asked for: in a checkout its folders of the plugin and of what goes with it, since that may be on
    no index; else the extra of the core."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folders = _checked_out(root, entry["extra"])
    if not folders:
        return f"'lightx2v-core[{entry['extra']}]'"
    here = "" if os.path.realpath(".") == os.path.realpath(root) else root
    return " ".join(f"-e {shlex.quote(os.path.join(here, 'plugins', folder))}" for folder in folders)


_REQUIREMENT = r'"lightx2v-([a-z0-9-]+)(\[[a-z0-9,-]+\])?[>=<]'


def _checked_out(root: str, extra: str) -> list[str]:
    """Return the folders that an extra of the core means in a checkout, each with its own extras, such as
    ``gradio[page]``: what goes with a plugin and what it needs, then the plugin; empty where there is none."""
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
    """Return the line of a project's file that says what an extra brings; empty where there is none."""
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
    # importlib.resources would cost a start of the program a fifth of what click does
    with open(os.path.join(os.path.dirname(__file__), "catalog.json"), encoding="utf-8") as file:
        kinds: Mapping[str, Mapping[str, CatalogEntry]] = json.load(file)
    return kinds
