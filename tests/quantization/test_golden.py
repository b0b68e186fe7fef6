"""Quantized networks against reference outputs: as a whole, linear by linear, and through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.cli import main  # noqa: E402
from lightx2v_core.quant.arithmetic import quantize_tokens  # noqa: E402

#: layout -> name of its outputs
STORED = {
    "int8_single": "int8",
    "int8_blocks": "int8",
    "fp8_single": "fp8",
    "fp8_blocks": "fp8",
    "comfy_fp8_scaled": "comfy",
}
LINEARS = ("blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.1.ffn.2")


@pytest.fixture(scope="module")
def inputs(case: Path) -> dict[str, Any]:
    return load_file(case / "inputs.safetensors")


@pytest.fixture(scope="module")
def outputs(case: Path) -> dict[str, Any]:
    return load_file(case / "outputs.safetensors")


@pytest.fixture(scope="module")
def tolerance(case: Path) -> dict[str, Any]:
    return json.loads((case / "case.json").read_text(encoding="utf-8"))["tolerance"]


@pytest.mark.parametrize("layout", STORED)
def test_decoded_weights_give_the_reference_output(layout, network, forward, inputs, outputs, tolerance):
    """Nobody names a quantizer: the weights are decoded, which changes nothing but rounding."""
    model, pipeline = network(layout)
    (choice,) = [item for item in pipeline.plan.choices if item.kind.startswith("quantizer")]
    assert choice.use == "core/dequant"
    assert type(model.blocks[0].ffn[0]).__name__ == "DecodedLinear"
    assert model.blocks[2].self_attn.o.weight.dtype in (torch.int8, torch.float8_e4m3fn)
    expected = outputs[f"{STORED[layout]}.dequant.out"]
    torch.testing.assert_close(forward(model, inputs), expected, **tolerance["dequant.out"])
    assert pipeline.plan.warnings == ()


@pytest.mark.parametrize("layout", ["int8_single", "fp8_single", "int8_blocks", "fp8_blocks"])
def test_products_of_codes_give_the_reference_output(layout, network, forward, inputs, outputs, tolerance):
    kind = STORED[layout]
    model, _ = network(layout, quantizer=f"{kind}-torch")
    error = (forward(model, inputs) - outputs[f"{kind}.w8a8.out"]).abs().mean()
    assert error < tolerance["w8a8.out"]["mean_abs"]
    exact = (forward(network(layout)[0], inputs) - outputs[f"{kind}.w8a8.out"]).abs().mean()
    assert error < exact, "a product of codes is nearer to the reference than one of decoded weights"


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("name", LINEARS)
def test_each_linear_gives_the_reference_output(kind, name, network, inputs, outputs, tolerance):
    x, key = inputs[f"linear.{name}.x"], f"linear.{kind}.{name}"
    layout = {"int8": "int8_single", "fp8": "fp8_blocks"}[kind]
    codes, scale = quantize_tokens(x, torch.int8 if kind == "int8" else torch.float8_e4m3fn)
    assert torch.equal(codes.float(), outputs[f"{key}.x_codes"])
    rows = x.abs().amax(dim=1) > 0  # the scale of a row of zeros is free
    assert torch.equal(scale[rows], outputs[f"{key}.x_scale"][rows])
    tolerance = tolerance["linear.*.y"]
    with torch.no_grad():
        got = network(layout, quantizer=f"{kind}-torch")[0].get_submodule(name)(x)
        decoded = network(layout)[0].get_submodule(name)(x)
    torch.testing.assert_close(got, outputs[f"{key}.y"], **tolerance)
    torch.testing.assert_close(decoded, outputs[f"{key}.y_dequant"], **tolerance)
    assert not torch.allclose(got, outputs[f"{key}.y_dequant"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_plain_weights_quantized_while_loading_are_those_of_the_file(kind, network):
    model, _ = network("ckpt", quantizer=f"{kind}-torch")
    stored, _ = network({"int8": "int8_single", "fp8": "fp8_blocks"}[kind])
    made, wanted = model.state_dict(), stored.state_dict()
    assert set(made) == set(wanted)
    for name, tensor in wanted.items():
        assert made[name].dtype == tensor.dtype, name
        assert torch.equal(made[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.parametrize(
    ("layout", "quantizer"),
    [(layout, None) for layout in STORED]
    + [("int8_blocks", "int8-torch"), ("fp8_blocks", "fp8-torch"), ("comfy_fp8_scaled", "fp8-torch")],
)
def test_every_layout_loads_through_run(layout, quantizer, tiny, case, path_of, tmp_path):
    """The same latents as from a folder whose weights were decoded beforehand; near them for products of codes."""
    path = path_of(layout)
    plain = tmp_path / "plain"
    plain.mkdir()
    tensors = {}
    for file in (case / layout).glob("*.safetensors"):
        tensors |= load_file(file)
    decoded = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name + "_scale", tensors.get(name.removesuffix("weight") + "scale_weight"))
        if name.endswith(".weight") and scale is not None:
            decoded[name] = tensor.float() * scale
        elif "scale" not in name:
            decoded[name] = tensor
    save_file(decoded, plain / "diffusion_pytorch_model.safetensors")
    (plain / "config.json").write_text((case / layout / "config.json").read_text())

    def run(dit: Path, *options: str) -> Any:
        dump = tmp_path / "dump.safetensors"
        arguments = [
            "run", "--model-path", tiny, "--model", "wan2.1", "--prompt", "a red fox", "--size", "32x32",
            "--frames", "1", "--steps", "2", "--guide-scale", "1", "--output", tmp_path / "o.png",
            "--dump-tensors", dump, "--set", f"components.dit.path={json.dumps(str(dit))}", *options,
        ]  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert not caught.value.code
        return load_file(dump)["latents"]

    wanted = run(plain)
    got = run(path, *(() if quantizer is None else ("--set", f"quantizer={quantizer}")))
    if quantizer is None:
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
    else:
        assert 0 < (got - wanted).norm() / wanted.norm() < 0.3
