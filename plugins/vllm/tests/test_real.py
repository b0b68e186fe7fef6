"""The real vLLM: int8 on this CPU, and int8 and fp8 on a GPU."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from lightx2v_core.api import BuildContext, Device, quantize_weight
from lightx2v_core.testing import wrong_here
from lightx2v_core.testing.contracts import QuantizerContract
from lightx2v_vllm import plugin

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
SPECS = {spec.name: spec for spec in plugin.lightx2v_quantizers()}


@pytest.fixture
def right_int8() -> None:
    """Skip a test, with figures, if the matmul is wrong on this machine, which runs reject as well."""
    if torch.cuda.is_available():
        pytest.skip("the CUDA build has no kernels for CPUs")
    if why := wrong_here("quantizer", "vllm/int8-vllm", ("float32", "bfloat16")):
        pytest.skip(why)


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stand_in_has_the_signatures_of_the_real_functions():
    from vllm import _custom_ops as ops

    standin = load("standin")
    for name in ("scaled_fp8_quant", "scaled_int8_quant", "cutlass_scaled_mm"):
        real, ours = (inspect.signature(getattr(module, name)) for module in (ops, standin))
        assert list(real.parameters) == list(ours.parameters), name
        for key, parameter in real.parameters.items():
            assert ours.parameters[key].default == parameter.default, (name, key)


def quantized(name: str, format: str, dtype: torch.dtype, device: str):
    """Build a layer of a quantizer, the same of PyTorch's, and the expected output."""
    common = load("test_plugin")
    torch.manual_seed(0)
    weight, bias = torch.randn(96, 64), torch.randn(96).to(dtype)
    plain, layer, stored = common.layer_of(weight, format, True, dtype)
    ctx = BuildContext(device=Device(kind=device), dtype=str(dtype)[6:])
    spec = SPECS[name]
    module = common.filled(spec.build(spec.config(), ctx).linear(plain, layer), stored, bias)
    from lightx2v_core.builtin.plugin import lightx2v_quantizers

    other = {spec.name: spec for spec in lightx2v_quantizers()}[name.replace("vllm", "torch")]
    known = common.filled(other.build(other.config(), ctx).linear(plain, layer), stored, bias)
    return module.to(device), known.to(device), weight, bias


@pytest.mark.parametrize("format", ["int8-channel", "int8-tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("right_int8")
def test_int8_on_a_cpu_is_the_product_of_pytorch(format, dtype):
    assert SPECS["int8-vllm"].unusable(BuildContext(dtype="float32")) == []
    module, known, weight, _ = quantized("int8-vllm", format, dtype, "cpu")
    x = torch.randn(2, 7, 64).to(dtype)
    x[0, 3] = 0
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    torch.testing.assert_close(module(x), known(x), **tolerance)
    # other weights in the same layer, as after a change of LoRA
    stored = quantize_weight(weight * 2, format)
    for linear in (module, known):
        linear.weight = nn.Parameter(stored["weight"], requires_grad=False)
        linear.weight_scale = stored["weight_scale"]
    torch.testing.assert_close(module(x), known(x), **tolerance)


@pytest.mark.parametrize("name", ["blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.1.ffn.2"])
@pytest.mark.usefixtures("right_int8")
def test_int8_linears_give_the_reference_output(name):
    load_file = pytest.importorskip("safetensors.torch").load_file
    folder = Path(__file__).resolve().parents[3] / "tests" / "golden" / "quant_wan21_t2v"
    if not folder.is_dir():
        pytest.skip("the reference data lies beside the sources only")
    common = load("test_plugin")
    tensors = load_file(folder / "int8_single" / "wan2.1_t2v_int8.safetensors")
    inputs, outputs = (load_file(folder / f"{part}.safetensors") for part in ("inputs", "outputs"))
    stored = {suffix: tensors[f"{name}.{suffix}"] for suffix in ("weight", "weight_scale")}
    weight = stored["weight"].float() * stored["weight_scale"]
    plain, layer, _ = common.layer_of(weight, "int8-channel", True, torch.float32)
    spec = SPECS["int8-vllm"]
    module = spec.build(spec.config(), BuildContext(dtype="float32")).linear(plain, layer)
    module = common.filled(module, stored, tensors[f"{name}.bias"])
    torch.testing.assert_close(
        module(inputs[f"linear.{name}.x"]), outputs[f"linear.int8.{name}.y"], atol=1e-3, rtol=1e-3
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["fp8-vllm", "int8-vllm"])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_kernels_of_a_gpu_are_the_product_of_pytorch(name, rows):
    module, known, _, _ = quantized(name, f"{name.split('-')[0]}-channel", torch.bfloat16, "cuda")
    x = torch.randn(rows, 64, device="cuda").bfloat16()
    torch.testing.assert_close(module(x), known(x), atol=0.1, rtol=0.05)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), atol=0.1, rtol=0.05)


class TestInt8Vllm(QuantizerContract):
    use = "vllm/int8-vllm"
    foreign = True
