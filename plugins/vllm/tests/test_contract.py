"""The contract of quantizers; what needs vLLM is skipped, with the reasons, where it cannot be used."""

from lightx2v_core.testing.contracts import QuantizerContract


class TestFp8(QuantizerContract):
    use = "vllm/fp8-vllm"


class TestInt8(QuantizerContract):
    use = "vllm/int8-vllm"
