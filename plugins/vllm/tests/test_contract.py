"""The contract of quantizers; what needs vLLM is skipped, with the reasons, where it cannot be used or is wrong: its
int8 product for CPUs adds in 16 bits on processors without VNNI."""

from lightx2v_core.testing.contracts import QuantizerContract


class TestFp8(QuantizerContract):
    use = "vllm/fp8-vllm"
    foreign = True


class TestInt8(QuantizerContract):
    use = "vllm/int8-vllm"
    foreign = True
