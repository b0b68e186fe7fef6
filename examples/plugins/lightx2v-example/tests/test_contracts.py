"""The contracts of the core's test kit, one class for each implementation."""

from __future__ import annotations

from lightx2v_core.testing.contracts import AttentionContract, ModelContract, SchedulerContract


class TestChunked(AttentionContract):
    use = "chunked"


class TestAdams2(SchedulerContract):
    use = "adams2"


class TestPebble(ModelContract):
    use = "pebble"
