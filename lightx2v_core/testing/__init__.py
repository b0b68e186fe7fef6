"""Test utilities for plugin authors. Nothing here is imported by a run.

``pytest_plugins = ["lightx2v_core.testing.fixtures"]`` in a ``conftest.py`` provides the fixture ``fake_dist``.
"""

from __future__ import annotations

from lightx2v_core.testing.dists import environment, write_dist
from lightx2v_core.testing.imports import HEAVY, assert_light_import, heavy_imports
from lightx2v_core.testing.proofs import wrong_here
from lightx2v_core.testing.sets import plugin_set

__all__ = [
    "HEAVY",
    "assert_light_import",
    "environment",
    "heavy_imports",
    "plugin_set",
    "write_dist",
    "wrong_here",
]
