"""The contract of offloaders."""

from __future__ import annotations

from lightx2v_core.testing.contracts import OffloaderContract


class TestOffloader(OffloaderContract):
    use = "pebble"
