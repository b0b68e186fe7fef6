"""``python only_plugins.py NAME...``: fails unless exactly these plugins, and no others, are installed."""

from __future__ import annotations

import sys
from importlib import metadata

wanted = sorted(sys.argv[1:])
entry_points = sorted(entry.name for entry in metadata.entry_points(group="lightx2v_core.plugins"))
distributions = sorted(
    {name for dist in metadata.distributions() if (name := dist.metadata["Name"]).startswith("lightx2v")}
)
expected = sorted(["lightx2v-core", *(f"lightx2v-{name}" for name in wanted)])
if (entry_points, distributions) != (wanted, expected):
    sys.exit(f"wanted the plugins {wanted}, found {entry_points} in the distributions {distributions}")
