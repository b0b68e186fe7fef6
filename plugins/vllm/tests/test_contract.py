"""The contract of quantizers; tests that need vLLM are skipped, with the reasons, where it is unusable or wrong: its
int8 matmul for CPUs accumulates in 16 bits on processors without VNNI."""

from lightx2v_core.testing.contracts import QuantizerContract


class TestFp8(QuantizerContract):
    use = "vllm/fp8-vllm"
    foreign = True


class TestInt8(QuantizerContract):
    use = "vllm/int8-vllm"
    foreign = True
