"""Installed distributions created for a test: a real ``.dist-info`` next to real modules, without pip."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

from lightx2v_core.discovery.plugins import GROUP


def write_dist(
    folder: Path,
    name: str,
    *,
    modules: Mapping[str, str],
    plugins: Mapping[str, str],
    version: str = "1.0",
    requires: Sequence[str] = ("lightx2v-core",),
    extras: Sequence[str] = (),
    about: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write a distribution into ``folder`` and return ``folder``; adding it to ``sys.path`` installs the distribution.

    ``modules`` maps file names to sources, ``plugins`` entry-point names to modules. ``requires`` are the
    ``Requires-Dist`` lines, such as ``lightx2v-core>=0.1,<0.2``, ``about`` other metadata lines, such as ``Summary``.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    headers = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    headers += [f"Requires-Dist: {text}" for text in requires]
    headers += [f"Provides-Extra: {extra}" for extra in extras]
    headers += [f"{key}: {value}" for key, value in about.items()]
    (info / "METADATA").write_text("\n".join([*headers, "", ""]), encoding="utf-8")
    entries = [f"[{GROUP}]", *(f"{plugin} = {module}" for plugin, module in plugins.items())]
    (info / "entry_points.txt").write_text("\n".join([*entries, ""]), encoding="utf-8")
    for file, source in modules.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source).lstrip("\n"), encoding="utf-8")
    return folder


def environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Return the environment for a subprocess that finds the distributions in ``folders``.

    ``LIGHTX2V_*`` variables are removed, except for those in ``variables``.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTX2V_")}
    path = [str(folder) for folder in folders]
    path += [part for part in kept.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), **variables}
