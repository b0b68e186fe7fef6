"""What the metadata of installed distributions says, and where they lie. Nothing of them is imported.

A distribution whose metadata is damaged or gone has an empty name and version; it never stops the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from packaging.utils import canonicalize_name

#: the entry point group of plugins, the distribution of the core, and the name that its own implementations are under
GROUP = "lightx2v_core.plugins"
CORE_DIST = "lightx2v-core"
CORE = "core"


def canonical(name: str) -> str:
    """A distribution name as packaging compares it."""
    return str(canonicalize_name(name))


def name_of(dist: metadata.Distribution | None) -> str:
    """The distribution's name, or an empty string."""
    return _stated(dist, "Name")


def version_of(dist: metadata.Distribution | None) -> str:
    """The distribution's version, or an empty string."""
    return _stated(dist, "Version")


def requirements(dist: metadata.Distribution) -> list[str]:
    """The distribution's ``Requires-Dist`` lines."""
    # only an egg-info has them in another file
    return list(dist.metadata.get_all("Requires-Dist") or dist.requires or ())


def origin_of(dist: metadata.Distribution) -> Mapping[str, Any]:
    """Where a distribution was installed from when not from an index (PEP 610); empty when that is not known."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def installed_twice() -> dict[str, list[str]]:
    """Distributions that lie in more than one folder of the path, with the folders; the first one wins.

    Only those that matter here: with a plugin in one of the places, or called ``lightx2v-*``.
    """
    places: dict[str, list[str]] = {}
    ours: set[str] = set()
    for dist in metadata.distributions():
        name = canonical(name_of(dist))
        # one folder under two names (lib and lib64) is no second copy
        place = os.path.realpath(str(dist.locate_file("")))
        if name and place not in places.setdefault(name, []):
            places[name].append(place)
        if name.startswith("lightx2v-") or any(entry.group == GROUP for entry in _entry_points(dist)):
            ours.add(name)
    return {name: where for name, where in places.items() if name in ours and len(where) > 1}


def _stated(dist: metadata.Distribution | None, key: str) -> str:
    if dist is None:
        return ""
    try:
        return str(dist.metadata[key] or "")
    except Exception:  # the file is gone or is no text; which error that is differs between Python versions
        return ""


def _entry_points(dist: metadata.Distribution) -> Iterable[metadata.EntryPoint]:
    try:
        return dist.entry_points
    except Exception:  # a damaged list of a foreign distribution: it drops out of the search
        return ()
