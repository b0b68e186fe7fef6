"""What the contract of attention has to be told. Imported by tests, and by
``lightx2v-core plugins check xformers --strict``."""

from __future__ import annotations

from lightx2v_core.testing.contracts import AttentionContract


class XformersContract(AttentionContract):
    """Built in half precision, in which every operator computes."""

    use = "xformers"
    dtype = "bfloat16"
