"""Metadata of installed distributions, read without importing them.

A distribution with damaged or missing metadata has an empty name and version, and never affects others.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CORE_DIST = "lightx2v-core"

_COMPARE: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


def canonical(name: str) -> str:
    """Normalize a distribution name for comparison, as packaging does."""
    return "-".join(filter(None, name.lower().replace("_", "-").replace(".", "-").split("-")))


def name_of(dist: metadata.Distribution | None) -> str:
    """Return the distribution's name, or an empty string."""
    return _field(dist, "Name")


def version_of(dist: metadata.Distribution | None) -> str:
    """Return the distribution's version, or an empty string."""
    return _field(dist, "Version")


def requirements(dist: metadata.Distribution) -> list[str]:
    """Return the distribution's ``Requires-Dist`` lines. Raises ``ValueError`` if its metadata cannot be read."""
    if not name_of(dist):
        raise ValueError("the metadata of its distribution cannot be read")
    # an egg-info has them in a different file
    return list(_metadata(dist).get_all("Requires-Dist") or dist.requires or ())


def incompatible(dist: metadata.Distribution, version: str) -> str:
    """Return the reason if the distribution does not support this ``version`` of the core, else an empty string."""
    for text in requirements(dist):
        name, rest = _split(text)
        if canonical(name) != CORE_DIST:
            continue
        if ";" in rest or "@" in rest:
            need = _requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            rest = str(need.specifier)
        if not admits(rest.strip("() "), version):
            return f"needs {CORE_DIST}{rest}, found {version}"
    return ""


def admits(specifier: str, version: str) -> bool:
    """Return True if a version specifier such as ``>=0.1,<0.2`` contains ``version``.

    Plain clauses are compared here: importing packaging would take longer than the rest of a listing.
    """
    if not specifier:
        return True
    have = _release(version)
    clauses = [_clause(text) for text in specifier.split(",")]
    if not have or None in clauses:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(specifier).contains(version, prereleases=True)
    return all(_COMPARE[clause[0]](have, clause[1]) for clause in clauses if clause)


def missing_requirements(dist: metadata.Distribution | None, extra: str | None) -> list[str]:
    """List the requirements of an extra that are not met in this environment, with one reason each."""
    if dist is None or extra is None:
        return []
    lines = requirements(dist)
    if canonical(extra) not in [canonical(name) for name in _metadata(dist).get_all("Provides-Extra") or ()]:
        return [f"{name_of(dist)} {version_of(dist)} has no extra {extra!r}"]
    missing = []
    for text in lines:
        need = _requirement(text)
        if (
            need.marker is None
            or not need.marker.evaluate({"extra": extra})
            or need.marker.evaluate({"extra": ""})
        ):
            continue
        version = _installed(need.name)
        if version is None:
            missing.append(f"{need.name}{need.specifier} is not installed")
        elif not need.specifier.contains(version, prereleases=True):
            missing.append(f"{need.name}{need.specifier} is not installed, found {version}")
    return missing


def as_requirement(dist: metadata.Distribution) -> str:
    """Format a line of a requirements file that reinstalls a distribution as it is (PEP 508, PEP 610).

    The line has the URL that it was installed from, if any. For an install from a folder it has the version, and the
    folder in a comment.
    """
    name, version = name_of(dist), version_of(dist)
    origin = origin_of(dist)
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        inside = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
        return f"{name} @ {vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}{inside}"
    if "archive_info" in origin and not url.startswith("file:"):
        return f"{name} @ {url}"
    return f"{name}=={version}" + (f"  # from {url.removeprefix('file://')}" if url else "")


def origin_of(dist: metadata.Distribution) -> Mapping[str, Any]:
    """Read the source of a distribution that was not installed from an index (PEP 610); empty if unknown."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _field(dist: metadata.Distribution | None, key: str) -> str:
    if dist is None:
        return ""
    try:
        return str(_metadata(dist)[key] or "")
    except Exception:  # the file is missing or not text; the error type depends on the Python version
        return ""


@lru_cache(maxsize=64)
def _metadata(dist: metadata.Distribution) -> metadata.PackageMetadata:
    """Cache ``dist.metadata``, which parses the file, README included, on every access."""
    return dist.metadata


def _installed(name: str) -> str | None:
    try:
        return version_of(metadata.distribution(name)) or None
    except metadata.PackageNotFoundError:
        return None


def _requirement(text: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(text)


def _split(requirement: str) -> tuple[str, str]:
    """Split ``name[extra]>=1; marker`` into the name and the text after its extras."""
    text = requirement.strip()
    end = next((i for i, char in enumerate(text) if not (char.isalnum() or char in "._-")), len(text))
    rest = text[end:].strip()
    return text[:end], rest.partition("]")[2].strip() if rest.startswith("[") else rest


def _clause(text: str) -> tuple[str, tuple[int, ...]] | None:
    """Parse a clause such as ``>=1.2`` into operator and release; None for more complex clauses."""
    number = text.strip().lstrip("<>=!~")
    sign, release = text.strip().removesuffix(number), _release(number.strip())
    return (sign, release) if sign in _COMPARE and release else None


def _release(version: str) -> tuple[int, ...]:
    """Parse a release without trailing zeros: (0, 2) for ``0.2.0`` and ``0.2``; empty if it is not only numbers."""
    parts = version.split(".")
    if not (version.isascii() and all(part.isdigit() for part in parts)):
        return ()
    numbers = [int(part) for part in parts]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
