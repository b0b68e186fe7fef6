"""LoRA files on quantized networks: merged into decoded weights that are quantized again, or run beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.quant.arithmetic import dequantize_weight, quantize_weight  # noqa: E402

LAYER, OTHER = "blocks.0.ffn.0", "blocks.1.ffn.0"


@pytest.fixture
def lora(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    tensors = {
        f"diffusion_model.{LAYER}.lora_down.weight": torch.randn(4, 64) * 0.3,
        f"diffusion_model.{LAYER}.lora_up.weight": torch.randn(128, 4) * 0.3,
        f"diffusion_model.{LAYER}.alpha": torch.tensor(4.0),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    return {"path": str(tmp_path / "lora.safetensors"), "strength": 0.5}


@pytest.fixture
def added(lora: dict[str, Any]) -> Any:
    tensors = load_file(lora["path"])
    up, down = (tensors[f"diffusion_model.{LAYER}.lora_{part}.weight"] for part in ("up", "down"))
    return 0.5 * up @ down


@pytest.mark.parametrize(
    ("layout", "format", "quantizer"),
    [
        ("int8_single", "int8-channel", "int8-torch"),
        ("fp8_blocks", "fp8-channel", None),
        ("comfy_fp8_scaled", "fp8-tensor", "fp8-torch"),
        ("ckpt", "int8-channel", "int8-torch"),
    ],
)
def test_a_merged_adapter_changes_codes_and_scales(layout, format, quantizer, network, lora, added):
    config = {} if quantizer is None else {"quantizer": quantizer}
    before, after = (network(layout, **config, **more)[0].state_dict() for more in ({}, {"loras": [lora]}))
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed == {f"{LAYER}.weight", f"{LAYER}.weight_scale"}
    weight = network("ckpt")[0].state_dict()[f"{LAYER}.weight"]
    if layout != "ckpt":
        weight = dequantize_weight(
            {suffix: before[f"{LAYER}.{suffix}"] for suffix in ("weight", "weight_scale")}, format
        )
    wanted = quantize_weight(weight + added, format)
    for suffix, tensor in wanted.items():
        got = after[f"{LAYER}.{suffix}"]
        torch.testing.assert_close(got.float(), tensor.reshape(got.shape).float(), atol=0, rtol=1e-6)


def test_an_attached_adapter_leaves_the_codes_alone(network, forward, lora, case):
    inputs = load_file(case / "inputs.safetensors")
    plain, _ = network("int8_single")
    model, _ = network("int8_single", loras=[lora], lora_applier="dynamic")
    merged, _ = network("int8_single", loras=[lora])
    assert torch.equal(model.state_dict()[f"{LAYER}.weight"], plain.state_dict()[f"{LAYER}.weight"])
    effect = (forward(merged, inputs) - forward(plain, inputs)).norm()
    assert (forward(model, inputs) - forward(merged, inputs)).norm() < 0.2 * effect


def test_adapters_of_a_loaded_quantized_model_are_switched(network, lora, added):
    _, pipeline = network("int8_single")
    before = {name: tensor.clone() for name, tensor in pipeline.module("dit").state_dict().items()}
    pipeline.set_loras([lora])
    fresh, _ = network("int8_single", loras=[lora])
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(pipeline.module("dit").state_dict()[name], tensor), name
    pipeline.set_loras([])
    for name, tensor in before.items():
        assert torch.equal(pipeline.module("dit").state_dict()[name], tensor), name
