"""Animate and the experts, quantized: in converted files and while they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_core import load
from lightx2v_core.api import RequestError
from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_animate

pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
from lightx2v_convert.conversion import convert
from lightx2v_convert.options import ConvertOptions


@pytest.fixture(scope="module")
def animate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animate")
    write_tiny_animate(folder)
    return folder


def pixels(*shape: int) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(9)) * 2 - 1


def latents(folder: Path, **dit: Any) -> Any:
    options = {"segment_frames": 5, "overlap_frames": 1}
    model = {"use": ["wan2.2-animate"], "options": {"wan2.2-animate": options}}
    pipeline = load(
        folder,
        dtype="float32",
        steps=1,
        config={"model": model, "components": {"dit": dit}} if dit else {"model": model},
    )
    given = {
        "ref_images": [pixels(3, 40, 60)],
        "pose_video": pixels(3, 5, 32, 48),
        "face_video": pixels(3, 5, 32, 32),
    }
    return pipeline.generate(prompt="a red fox", **given).latents


@pytest.fixture(scope="module")
def plain(animate: Path) -> Any:
    return latents(animate)


@pytest.mark.parametrize(("kind", "quantizer"), [("int8", "int8-torch"), ("fp8", None)])
def test_animate_runs_from_a_converted_file(kind, quantizer, animate, plain, tmp_path):
    """Its adapters are quantized too, as LightX2V's loader requires; a file without that also runs."""
    file = tmp_path / "animate.safetensors"
    convert(animate, file, ConvertOptions(quantize=kind, component="dit", dtype="bfloat16"))
    stored = load_file(file)
    assert stored["face_adapter.fuser_blocks.0.linear1_kv.weight"].element_size() == 1
    assert stored["motion_encoder.enc.fc.0.weight"].dtype == torch.bfloat16
    got = latents(animate, path=str(file), **({} if quantizer is None else {"quantizer": quantizer}))
    assert 0 < (got - plain).norm() / plain.norm() < 0.3
    other = tmp_path / "no_adapters.safetensors"
    convert(animate, other, ConvertOptions(quantize=kind, component="dit", keep=("face_adapter.*",)))
    got = latents(animate, path=str(other))
    assert 0 < (got - plain).norm() / plain.norm() < 0.3


def test_animate_is_quantized_while_it_is_loaded(animate, plain):
    got = latents(animate, quantizer="int8-torch")
    assert 0 < (got - plain).norm() / plain.norm() < 0.3


def test_each_expert_may_have_a_precision_of_its_own(tmp_path):
    write_tiny_a14b(tmp_path / "model")
    file = tmp_path / "high.safetensors"
    convert(tmp_path / "model" / "high_noise_model", file, ConvertOptions(quantize="fp8"))
    components = {"high_noise": {"path": str(file)}, "low_noise": {"quantizer": "int8-torch"}}
    request: dict[str, Any] = {"prompt": "a fox", "size": (32, 32), "frames": 5, "steps": 2}
    plain = load(tmp_path / "model", config={"model": "wan2.2-a14b"}).generate(**request).latents
    pipeline = load(tmp_path / "model", config={"model": "wan2.2-a14b", "components": components})
    used = {item.kind: item.use for item in pipeline.plan.choices if item.kind.startswith("quantizer")}
    assert set(used.values()) == {"core/dequant", "core/int8-torch"}
    got = pipeline.generate(**request).latents
    assert 0 < (got - plain).norm() / plain.norm() < 0.3


@pytest.mark.parametrize("expert", ["high_noise", "low_noise"])
def test_an_expert_is_converted_by_its_name(expert: str, tmp_path: Path) -> None:
    """From the model's folder, which has a folder for each expert."""
    model, file = tmp_path / "model", tmp_path / "expert.safetensors"
    write_tiny_a14b(model)
    convert(model, file, ConvertOptions(component=expert))
    own: dict[str, torch.Tensor] = {}
    for shard in (model / f"{expert}_model").glob("*.safetensors"):
        own.update(load_file(shard))
    got = load_file(file)
    assert got.keys() == own.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize(
    ("component", "parts"),
    [
        (None, ["its folders do (", "high_noise_model, low_noise_model", "--component"]),
        ("dit", ["contains 2 networks", "high_noise_model/", "low_noise_model/"]),
        ("hihg_noise", ["did you mean 'high_noise'?", "text_encoder"]),
        ("image_encoder", ["has no 'image_encoder'; components of the installed models:"]),
    ],
)
def test_what_an_experts_folder_holds_is_said(
    component: str | None, parts: list[str], tmp_path: Path
) -> None:
    write_tiny_a14b(tmp_path / "model")
    for encoder in (tmp_path / "model").glob("*.pth"):  # they lie beside the experts' folders
        encoder.unlink()
    with pytest.raises(RequestError) as caught:
        convert(tmp_path / "model", tmp_path / "x.safetensors", ConvertOptions(component=component))
    assert [part for part in parts if part not in str(caught.value)] == []
    assert not (tmp_path / "x.safetensors").exists()
