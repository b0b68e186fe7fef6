"""``python only_plugins.py NAME...``: fails unless exactly these plugins, and no others, are installed.

``--all``: every plugin of this repository, and its examples.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

wanted = sorted(sys.argv[1:])
if wanted == ["--all"]:
    root = Path(__file__).resolve().parent.parent
    folders = [file.parent.name for file in root.glob("plugins/*/pyproject.toml")]
    folders += [file.parent.name for file in root.glob("examples/plugins/*/pyproject.toml")]
    wanted = sorted(name.removeprefix("lightx2v-").replace("_", "-") for name in folders)
entry_points = sorted(entry.name for entry in metadata.entry_points(group="lightx2v_core.plugins"))
distributions = sorted(
    {name for dist in metadata.distributions() if (name := dist.metadata["Name"]).startswith("lightx2v")}
)
expected = sorted(["lightx2v-core", *(f"lightx2v-{name}" for name in wanted)])
if (entry_points, distributions) != (wanted, expected):
    sys.exit(f"wanted the plugins {wanted}, found {entry_points} in the distributions {distributions}")
