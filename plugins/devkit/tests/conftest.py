"""Fixtures shared by all tests."""

from __future__ import annotations

from hypothesis import settings

# an example may be the first to import something, on a machine that does other things: no time of its own is too long
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")

pytest_plugins = ["lightx2v_core.testing.fixtures"]
