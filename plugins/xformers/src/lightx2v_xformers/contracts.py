"""Parameters of the contract tests. Imported by tests and by ``lightx2v-core plugins check xformers --strict``."""

from __future__ import annotations

from lightx2v_core.testing.contracts import AttentionContract


class XformersContract(AttentionContract):
    """Contract of ``xformers`` in bfloat16, which every operator supports."""

    use = "xformers"
    dtype = "bfloat16"
