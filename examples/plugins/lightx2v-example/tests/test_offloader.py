"""The contract of offloaders, and where the weights are."""

from __future__ import annotations

from lightx2v_core.testing.contracts import OffloaderContract


class TestOffloader(OffloaderContract):
    use = "pebble"
