"""Fixtures shared by all tests."""

from __future__ import annotations

from lightx2v_core.testing.profiles import register_profiles

register_profiles()

pytest_plugins = ["lightx2v_core.testing.fixtures"]
