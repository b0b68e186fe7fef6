"""The contract of quantizers; those unusable on this machine are skipped, with the reasons."""

from lightx2v_core.testing.contracts import QuantizerContract


class TestInt8(QuantizerContract):
    use = "torchao/int8-torchao"
    foreign = True


class TestFp8(QuantizerContract):
    use = "torchao/fp8-torchao"
    foreign = True
