"""The contract of attention backends, with several chunk sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightx2v_core.testing.contracts import AttentionContract


class TestAttention(AttentionContract):
    use = "pebble"


class TestAttentionInSmallChunks(AttentionContract):
    """Chunks whose size does not divide the keys."""

    use = "pebble"
    options: ClassVar[Mapping[str, Any]] = {"chunk": 5}
