"""torchao's kernels on stored weights: against PyTorch's kernels, the reference data, and in whole runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightx2v_core.api import BuildContext, Device, LayerFormat, PluginError, TensorInfo, quantize_weight
from lightx2v_core.builtin.plugin import lightx2v_quantizers as builtin_quantizers
from lightx2v_core.testing import wrong_here
from lightx2v_torchao import plugin

CUDA = Device(kind="cuda", name="a GPU", capability=(9, 0), memory=1 << 36)
SPECS = {spec.name: spec for spec in plugin.lightx2v_quantizers()}
KNOWN = {spec.name: spec for spec in builtin_quantizers()}
INSTALLED = importlib.util.find_spec("torchao") is not None
real = pytest.mark.skipif(not INSTALLED, reason="torchao is not installed")


@pytest.fixture
def right() -> Callable[[str], None]:
    """``right("int8")`` skips a test, with figures, if the matmul is wrong on this machine; runs reject it as well."""

    def check(kind: str) -> None:
        if why := wrong_here("quantizer", f"torchao/{kind}-torchao", ("float32", "bfloat16", "float16")):
            pytest.skip(why)

    return check


GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden" / "quant_wan21_t2v"
SMALL: dict[str, Any] = {"size": (32, 32), "frames": 1, "steps": 2, "prompt": "a fox", "guide_scale": 1.0}


def linear(
    name: str, stored: dict[str, Any], format: str, bias: Any, dtype: torch.dtype, device: str = "cpu"
) -> Any:
    """Build a layer with weights, of a quantizer of PyTorch or torchao."""
    spec = (SPECS | KNOWN)[name]
    shape = tuple(stored["weight"].shape)
    tensors = {
        suffix: TensorInfo(
            name=f"l.{suffix}", shape=tuple(t.shape), dtype=str(t.dtype)[6:], file=Path("w.safetensors")
        )
        for suffix, t in stored.items()
    }
    with torch.device("meta"):
        plain = nn.Linear(shape[1], shape[0], bias=bias is not None, dtype=dtype)
    ctx = BuildContext(device=Device(kind=device), dtype=str(dtype)[6:])
    layer = LayerFormat(name="l", format=format, tensors=tensors, shape=shape)
    module = spec.build(spec.config(), ctx).linear(plain, layer)
    module.weight = nn.Parameter(stored["weight"], requires_grad=False)
    module.weight_scale = stored["weight_scale"].float()
    if bias is not None:
        module.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return module.to(device)


def test_without_torchao_or_with_an_old_one_the_reason_is_said(monkeypatch):
    def absent(_name: str) -> str:
        raise metadata.PackageNotFoundError

    for version, words in (
        (absent, "not installed"),
        (lambda _: "0.17.0", "0.17.0 is older"),
        (lambda _: "0.19.1", ""),
    ):
        monkeypatch.setattr(metadata, "version", version)
        said = "".join(SPECS["int8-torchao"].unusable(BuildContext()))
        assert bool(said) == bool(words)
        assert words in said
    assert "in float32" in "".join(SPECS["fp8-torchao"].unusable(BuildContext(device=CUDA, dtype="float32")))
    assert not SPECS["fp8-torchao"].unusable(BuildContext(device=CUDA, dtype="bfloat16"))


def test_sides_that_the_kernels_do_not_take_are_refused():
    for spec in SPECS.values():
        assert spec.refuses((32, 24), BuildContext(device=CUDA)) is not None
        assert spec.refuses((32, 48), BuildContext(device=CUDA)) is None
        assert spec.refuses((3, 5), BuildContext()) is None


@real
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", ["int8-channel", "int8-tensor", "fp8-channel", "fp8-tensor"])
def test_the_product_is_that_of_pytorch(format, dtype, right):
    """Except for the scale of int8 activations, which maps the largest value to 127.5 in torchao."""
    torch.manual_seed(0)
    kind = format.partition("-")[0]
    right(kind)
    stored, bias = quantize_weight(torch.randn(96, 64), format), torch.randn(96)
    x = torch.randn(2, 7, 64).to(dtype)
    x[0, 3] = 0
    got, known = (linear(f"{kind}-{name}", stored, format, bias, dtype)(x) for name in ("torchao", "torch"))
    assert got.dtype == dtype
    assert (got - known).float().norm() / known.float().norm() < 0.01
    exact = linear("dequant", stored, format, bias, torch.float32)(x.float())
    assert (got.float() - exact).norm() / exact.norm() < (0.012 if kind == "int8" else 0.04)


@real
@pytest.mark.parametrize(
    ("kind", "layout"),
    [("int8", "int8_single/wan2.1_t2v_int8.safetensors"), ("fp8", "fp8_blocks")],
)
@pytest.mark.parametrize("name", ["blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.1.ffn.2"])
def test_linears_give_the_reference_output(kind, layout, name, right):
    right(kind)
    load_file = pytest.importorskip("safetensors.torch").load_file
    if not GOLDEN.is_dir():
        pytest.skip("the reference data lies beside the sources only")
    path = GOLDEN / layout
    tensors = load_file(path / f"{name[:8].replace('s.', '_')}.safetensors" if path.is_dir() else path)
    inputs, outputs = (load_file(GOLDEN / f"{part}.safetensors") for part in ("inputs", "outputs"))
    stored = {suffix: tensors[f"{name}.{suffix}"] for suffix in ("weight", "weight_scale")}
    module = linear(f"{kind}-torchao", stored, f"{kind}-channel", tensors[f"{name}.bias"], torch.float32)
    wanted = outputs[f"linear.{kind}.{name}.y"]
    assert (module(inputs[f"linear.{name}.x"]) - wanted).norm() / wanted.norm() < 0.012


@real
def test_nothing_is_quantized_again():
    """torchao computes with the stored codes and scales."""
    from lightx2v_torchao.kernels import int8_weight

    stored = quantize_weight(torch.randn(32, 64), "int8-channel")
    module = linear("int8-torchao", stored, "int8-channel", None, torch.float32)
    made = int8_weight(module.weight, module.scales(), torch.float32)
    assert made.qdata.data_ptr() == module.weight.data_ptr()
    assert torch.equal(made.dequantize(), stored["weight"].float() * stored["weight_scale"])


@real
def test_a_compiler_keeps_one_graph():
    stored = quantize_weight(torch.randn(48, 32), "int8-channel")
    module = linear("int8-torchao", stored, "int8-channel", torch.randn(48), torch.float32)
    network = nn.Sequential(module, nn.GELU())
    x = torch.randn(4, 32)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(x), network(x))


@real
def test_another_torchao_is_reported(monkeypatch):
    from lightx2v_torchao import kernels

    kernels.check()
    monkeypatch.setitem(kernels._USED, kernels.int8_tensor.Int8Tensor, ("qdata", "acme"))
    with pytest.raises(PluginError, match="Int8Tensor of the installed torchao has no parameter acme"):
        kernels.check()


@real
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_model_runs_quantized_by_file_and_on_load(kind, tmp_path, right):
    right(kind)
    tiny = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
    from lightx2v_convert.conversion import convert
    from lightx2v_convert.options import ConvertOptions
    from lightx2v_core import load

    tiny.write_tiny(tmp_path / "model", 0)
    convert(tmp_path / "model", tmp_path / "q.safetensors", ConvertOptions(quantize=kind, component="dit"))
    plain = load(tmp_path / "model").generate(**SMALL).latents
    results = []
    for dit in ({"path": str(tmp_path / "q.safetensors")}, {}):
        config = {"components": {"dit": {**dit, "quantizer": f"{kind}-torchao"}}}
        pipeline = load(tmp_path / "model", config=config)
        assert type(pipeline.module("dit").blocks[0].ffn[0]).__name__ == f"{kind.title()}TorchaoLinear"
        results.append(pipeline.generate(**SMALL).latents)
    assert torch.equal(*results), "quantization on load gives the weights that the converter writes"
    assert 0 < (results[0] - plain).norm() / plain.norm() < (0.1 if kind == "int8" else 0.3)


@real
def test_a_third_party_model_is_quantized_with_no_code_of_its_own(tmp_path, right):
    right("int8")
    tiny = pytest.importorskip("lightx2v_example.tiny", reason="needs the example plugin")
    from lightx2v_core import load

    tiny.write_tiny(tmp_path / "pebble", 0)
    request: dict[str, Any] = {"prompt": "x", "seed": 1, "size": (32, 32), "steps": 2}
    plain = load(tmp_path / "pebble").generate(**request).latents
    got = load(tmp_path / "pebble", config={"quantizer": "int8-torchao"}).generate(**request).latents
    assert 0 < (got - plain).norm() / plain.norm() < 0.2


@pytest.mark.gpu
@real
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_kernels_of_a_gpu_are_the_product_of_pytorch(kind, rows):
    format = f"{kind}-channel"
    stored, bias = quantize_weight(torch.randn(96, 64), format), torch.randn(96)
    got, known = (
        linear(f"{kind}-{name}", stored, format, bias, torch.bfloat16, "cuda")
        for name in ("torchao", "torch")
    )
    x = torch.randn(rows, 64, device="cuda").bfloat16()
    torch.testing.assert_close(got(x), known(x), atol=0.1, rtol=0.05)
