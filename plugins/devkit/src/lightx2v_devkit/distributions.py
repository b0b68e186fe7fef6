"""Metadata and location of installed distributions, without importing them.

A distribution with damaged or missing metadata has an empty name and version; it does not affect the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from packaging.utils import canonicalize_name

#: entry point group of plugins, distribution of the core, and plugin name of the core's implementations
GROUP = "lightx2v_core.plugins"
CORE_DIST = "lightx2v-core"
CORE = "core"


def canonical(name: str) -> str:
    """Normalize a distribution name as packaging does."""
    return str(canonicalize_name(name))


def name_of(dist: metadata.Distribution | None) -> str:
    """Return the name of a distribution, or an empty string."""
    return _stated(dist, "Name")


def version_of(dist: metadata.Distribution | None) -> str:
    """Return the version of a distribution, or an empty string."""
    return _stated(dist, "Version")


def requirements(dist: metadata.Distribution) -> list[str]:
    """Return the ``Requires-Dist`` lines of a distribution."""
    # only an egg-info keeps them in another file
    return list(dist.metadata.get_all("Requires-Dist") or dist.requires or ())


def origin_of(dist: metadata.Distribution) -> Mapping[str, Any]:
    """Return the origin of a distribution not installed from an index (PEP 610); empty if unknown."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def installed_twice() -> dict[str, list[str]]:
    """Find distributions in more than one folder of the path, with their folders; the first one wins.

    Limited to distributions with a plugin in one of the places, and to ``lightx2v-*``.
    """
    places: dict[str, list[str]] = {}
    ours: set[str] = set()
    for dist in metadata.distributions():
        name = canonical(name_of(dist))
        # one folder under two names (lib and lib64) is not a second copy
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
    except Exception:  # the file is missing or not text; the exception type depends on the Python version
        return ""


def _entry_points(dist: metadata.Distribution) -> Iterable[metadata.EntryPoint]:
    try:
        return dist.entry_points
    except Exception:  # a damaged list of a foreign distribution is ignored
        return ()
