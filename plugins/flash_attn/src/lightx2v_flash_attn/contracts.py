"""Parameters of the contract tests. Imported by tests and by ``lightx2v-core plugins check flash-attn --strict``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightx2v_core.testing.contracts import AttentionContract


class Flash2Contract(AttentionContract):
    """Contract of ``flash-attn2``, which computes in half precision only."""

    use = "flash-attn2"
    dtype = "bfloat16"


class Flash3Contract(AttentionContract):
    """Contract of ``flash-attn3``, which computes in half precision only."""

    use = "flash-attn3"
    dtype = "bfloat16"


class Sage2Contract(AttentionContract):
    """Contract of ``sage2``, which rounds queries and keys to 8 bits."""

    use = "sage2"
    dtype = "bfloat16"
    tolerance: ClassVar[Mapping[str, float]] = {"float16": 0.2, "bfloat16": 0.2}
