"""The contract of models, on Wan2.1."""

from lightx2v_core.testing.contracts import ModelContract


class TestWan21(ModelContract):
    use = "wan21/wan2.1"
