"""The text and the image encoder, quantized: in files that ``convert`` makes, in every layout, and while loading."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_convert.conversion import convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core import load  # noqa: E402

T5, CLIP = "models_t5_umt5-xxl-enc", "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
SMALL: dict[str, Any] = {"size": (32, 32), "frames": 5, "steps": 1, "prompt": "a fox", "guide_scale": 1.0}
ENCODERS = {"text_encoder": f"{T5}-bf16.pth", "image_encoder": f"{CLIP}.pth"}


@pytest.fixture(scope="module")
def i2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("i2v") / "model"
    write_tiny(folder, 0, "i2v")
    return folder


@pytest.fixture(scope="module")
def image(i2v: Path) -> Any:
    from PIL import Image

    return Image.effect_noise((48, 48), 60).convert("RGB")


@pytest.fixture(scope="module")
def plain(i2v: Path, image: Any) -> Any:
    return load(i2v).generate(image=image, **SMALL).latents


def near(got: Any, wanted: Any) -> bool:
    return 0 < float((got - wanted).norm() / wanted.norm()) < 0.3


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("scheme", ["int8", "fp8", "int8-torch", "fp8-torch"])
def test_an_encoder_is_quantized_while_it_is_loaded(name, scheme, i2v, image, plain):
    """The bare names work too; they select any kernel that is installed."""
    pipeline = load(i2v, config={"components": {name: {"quantizer": scheme}}})
    (choice,) = [item for item in pipeline.plan.choices if item.kind.startswith("quantizer")]
    assert choice.use.split("/")[1].startswith(scheme[:4].rstrip("-"))
    assert any(f"{name}: " in note and "are quantized to" in note for note in pipeline.plan.notes)
    assert near(pipeline.generate(image=image, **SMALL).latents, plain)


@pytest.mark.parametrize(
    "values",
    [
        {
            "t5_quantized": True,
            "t5_quant_scheme": "int8",
            "clip_quantized": True,
            "clip_quant_scheme": "int8",
        },
        {"t5_quantized": True, "t5_quant_scheme": "fp8", "clip_quantized": True, "clip_quant_scheme": "fp8"},
    ],
)
def test_flat_keys_find_converted_encoders(values, i2v, image, plain, tmp_path):
    kind = values["t5_quant_scheme"]
    folder = tmp_path / "model"
    shutil.copytree(i2v, folder)
    convert(i2v / f"{T5}-bf16.pth", folder / f"{T5}-{kind}.safetensors", ConvertOptions(quantize=kind))
    convert(
        i2v / f"{CLIP}.pth",
        folder / f"{CLIP}-{kind}.safetensors",
        ConvertOptions(quantize=kind, dtype="float16"),
    )
    pipeline = load(folder, config=values)
    files = {part.name: Path(part.files[0]).name for part in pipeline.plan.components}
    assert files["text_encoder"] == f"{T5}-{kind}.safetensors"
    assert files["image_encoder"] == f"{CLIP}-{kind}.safetensors"
    assert all(part.scheme == f"{kind}-channel" for part in pipeline.plan.components if part.name in ENCODERS)
    assert near(pipeline.generate(image=image, **SMALL).latents, plain)


@pytest.mark.parametrize(
    ("name", "layout", "quantize"),
    [
        ("text_encoder", "comfyui", "fp8"),
        ("text_encoder", "transformers", "int8"),
        ("image_encoder", "comfyui", "fp8"),
        ("image_encoder", "comfyui", "int8"),
        ("image_encoder", "transformers", "int8"),
    ],
)
def test_other_layouts_hold_the_same_weights(name, layout, quantize, i2v, tmp_path):
    """Quantized in another layout, and back in official names: the decoded weights are those of the direct way."""
    format = f"{quantize}-{'tensor' if layout == 'comfyui' else 'channel'}"
    other, back, direct = (tmp_path / f"{part}.safetensors" for part in ("other", "back", "direct"))
    convert(i2v / ENCODERS[name], other, ConvertOptions(quantize=quantize, layout=layout))
    assert not any("blocks." in key or "to_qkv" in key for key in load_file(other))
    assert any("scale_weight" in key for key in load_file(other)) == (layout == "comfyui")
    convert(other, back, ConvertOptions(quantize="none"))
    convert(i2v / ENCODERS[name], direct, ConvertOptions(quantize=format))
    convert(direct, tmp_path / "plain.safetensors", ConvertOptions(quantize="none"))
    wanted, got = load_file(tmp_path / "plain.safetensors"), load_file(back)
    assert set(wanted) - set(got) <= {"log_scale"}
    for key, tensor in got.items():
        torch.testing.assert_close(tensor.flatten(), wanted[key].flatten(), atol=0, rtol=0, msg=key)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8"])
def test_parts_that_are_joined_keep_a_scale_each(dtype, shape, i2v, image, tmp_path):
    """Queries, keys and values of the image encoder are apart in other files, each with one scale."""
    codes = getattr(torch, dtype)
    convert(i2v / f"{CLIP}.pth", tmp_path / "apart.safetensors", ConvertOptions(layout="transformers"))
    tensors = load_file(tmp_path / "apart.safetensors")
    decoded = dict(tensors)
    for number, name in enumerate(sorted(name for name in tensors if "_proj.weight" in name)):
        scale = torch.tensor(0.002 * (1 + number % 7)).reshape(shape)
        values = (tensors[name].float() / scale).clamp(-120, 120)
        tensors[name] = (values.round() if dtype == "int8" else values).to(codes)
        tensors[name.replace(".weight", ".weight_scale")] = scale
        # scale of activations, which is recomputed in every call
        tensors[name.replace(".weight", ".input_scale")] = torch.tensor(0.01 * (1 + number)).reshape(shape)
        decoded[name] = tensors[name].float() * scale
    save_file(tensors, tmp_path / "coded.safetensors")
    save_file(decoded, tmp_path / "plain.safetensors")
    found = [
        load(i2v, config={"components": {"image_encoder": {"path": str(tmp_path / f"{kind}.safetensors")}}})
        for kind in ("coded", "plain")
    ]
    (part,) = [item for item in found[0].plan.components if item.name == "image_encoder"]
    assert part.scheme == f"{'int8' if dtype == 'int8' else 'fp8'}-channel"
    latents = [pipeline.generate(image=image, **SMALL).latents for pipeline in found]
    torch.testing.assert_close(*latents, atol=1e-4, rtol=1e-4)
    assert not found[0].plan.warnings


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield
