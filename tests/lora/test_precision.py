"""What a merged LoRA is rounded to: the dtype that is computed in or stored, once, and never that of a file before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_convert.conversion import convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core import load  # noqa: E402
from lightx2v_core.config.model import LoraConfig  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402

NETWORK = "diffusion_pytorch_model.safetensors"
Q, NORM = "blocks.0.self_attn.q.weight", "blocks.0.norm3.weight"
SMALL: dict[str, Any] = {"prompt": "a fox", "size": (32, 32), "frames": 1, "steps": 1, "guide_scale": 1.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model with its network stored in each dtype; ``merged`` has the LoRA in it, summed in float64."""
    from lightx2v_wan21.tiny import write_tiny

    root = tmp_path_factory.mktemp("precision")
    write_tiny(root / "bfloat16", 0)
    parts = sorted((root / "bfloat16").glob("diffusion_pytorch_model*"))
    plain = {
        name: tensor.bfloat16()
        for part in parts
        if part.suffix == ".safetensors"
        for name, tensor in load_file(part).items()
    }
    for part in parts:
        part.unlink()
    save_file(plain, root / "bfloat16" / NETWORK)
    for dtype in ("float16", "float32"):
        shutil.copytree(root / "bfloat16", root / dtype)
        save_file({n: t.to(getattr(torch, dtype)) for n, t in plain.items()}, root / dtype / NETWORK)
    found = {name: root / name for name in ("bfloat16", "float16", "float32")}
    generator = torch.Generator().manual_seed(1)
    lora = {
        "blocks.0.self_attn.q.lora_down.weight": torch.randn(4, 64, generator=generator) * 0.1,
        "blocks.0.self_attn.q.lora_up.weight": torch.randn(64, 4, generator=generator) * 0.1,
        "blocks.0.norm3.diff": torch.randn(64, generator=generator) * 0.01,
    }
    save_file(lora, root / "lora.safetensors")
    shutil.copytree(root / "bfloat16", root / "merged")
    whole = {name: tensor.float() for name, tensor in plain.items()}
    save_file(whole | {n: t.float() for n, t in exact(whole, lora).items()}, root / "merged" / NETWORK)
    return {**found, "merged": root / "merged", "lora": root / "lora.safetensors"}


def exact(plain: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    """The changed tensors in float64, by the formula."""
    down, up = (lora[f"blocks.0.self_attn.q.lora_{part}.weight"].double() for part in ("down", "up"))
    return {
        Q: plain[Q].double() + 0.7 * up @ down,
        NORM: plain[NORM].double() + 0.7 * lora["blocks.0.norm3.diff"].double(),
    }


def expected(models: dict[str, Path], stored: str) -> dict[str, Any]:
    return exact(load_file(models[stored] / NETWORK), load_file(models["lora"]))


def entry(models: dict[str, Path]) -> dict[str, Any]:
    return {"path": str(models["lora"]), "strength": 0.7}


@pytest.mark.parametrize("computed", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
def test_a_run_rounds_to_what_it_computes_in(models: dict[str, Path], stored: str, computed: str) -> None:
    pipeline = load(models[stored], device="cpu", dtype=computed, loras=[entry(models)])
    weights = pipeline.module("dit").state_dict()
    for name, wanted in expected(models, stored).items():
        # norms may be computed in float32 in every run
        got, dtype = weights[name], weights[name].dtype
        assert dtype in (torch.float32, getattr(torch, computed))
        if dtype == torch.float32:
            assert (got.double() - wanted).abs().max() <= 1e-6, name
        else:
            # one rounding: at most half a unit in the last place, and float32's own error
            assert ((got.double() - wanted).abs() <= wanted.abs() * torch.finfo(dtype).eps / 2 + 1e-6).all()


@pytest.mark.parametrize("offloader", ["none", "sequential", "cpu", "disk"])
def test_wherever_weights_are_held(models: dict[str, Path], offloader: str) -> None:
    if offloader in ("cpu", "disk"):
        pytest.importorskip("lightx2v_offload")
    common: dict[str, Any] = {"device": "cpu", "dtype": "float32", "offloader": offloader}
    with load(models["merged"], **common) as pipeline:
        wanted = pipeline.generate(**SMALL).latents
    with load(models["bfloat16"], loras=[entry(models)], **common) as pipeline:
        torch.testing.assert_close(pipeline.generate(**SMALL).latents, wanted, atol=1e-5, rtol=1e-5)
        pipeline.set_loras([])
        without = pipeline.generate(**SMALL).latents
        pipeline.set_loras([entry(models)])
        again = pipeline.generate(**SMALL).latents
        torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-5)
    assert (without - wanted).abs().max() > 1e-4


@pytest.mark.parametrize("quantizer", ["int8-torch", "dequant"])
def test_quantized_without_a_rounding_between(models: dict[str, Path], quantizer: str) -> None:
    section: Any = {"use": quantizer, "options": {"dequant": {"format": "int8-channel"}}}
    if quantizer != "dequant":
        section = quantizer
    common: dict[str, Any] = {"device": "cpu", "dtype": "float32", "quantizer": section}
    with load(models["merged"], **common) as pipeline:
        wanted = pipeline.module("dit").state_dict()[Q]
    with load(models["bfloat16"], loras=[entry(models)], **common) as pipeline:
        got = pipeline.module("dit").state_dict()[Q]
    assert got.dtype == wanted.dtype == torch.int8
    # a sum in float32 instead of float64 may turn a tie; a rounding to bfloat16 moves some 10 % of the codes
    assert (got != wanted).float().mean() <= 2e-3


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 2**-8), ({"dtype": "float32"}, 2e-7), ({"dtype": "float16"}, 2**-11)],
    ids=["as it is stored", "float32", "float16"],
)
def test_convert_stores_what_was_asked_for(
    models: dict[str, Path], options: dict[str, Any], limit: float, tmp_path: Path
) -> None:
    lora = LoraConfig(path=str(models["lora"]), strength=0.7)
    made = ConvertOptions(component="dit", loras=(lora,), **options)
    plugins = load_plugins(disable=[])
    convert(str(models["bfloat16"]), tmp_path / "a.safetensors", made, plugins=plugins)
    got = load_file(tmp_path / "a.safetensors")
    for name, wanted in expected(models, "bfloat16").items():
        assert got[name].dtype == getattr(torch, options.get("dtype", "bfloat16"))
        assert ((got[name].double() - wanted).abs() <= wanted.abs() * limit + 1e-6).all(), name


def test_convert_quantizes_without_a_rounding_between(models: dict[str, Path], tmp_path: Path) -> None:
    lora = LoraConfig(path=str(models["lora"]), strength=0.7)
    plugins = load_plugins(disable=[])
    found = []
    for name, loras in (("merged", ()), ("bfloat16", (lora,))):
        output = tmp_path / f"{name}.safetensors"
        options = ConvertOptions(component="dit", quantize="int8", loras=loras)
        convert(str(models[name]), output, options, plugins=plugins)
        found.append(load_file(output)[Q])
    assert found[0].dtype == torch.int8
    assert (found[0] != found[1]).float().mean() <= 2e-3


def test_a_pickle_of_the_official_name(models: dict[str, Path], tmp_path: Path) -> None:
    """``relighting_lora.ckpt``: as ``.pt`` is, for a LoRA file and for a network."""
    path = tmp_path / "relighting_lora.ckpt"
    torch.save({"state_dict": load_file(models["lora"])}, path)
    pipeline = load(
        models["float32"], device="cpu", dtype="float32", loras=[{"path": str(path), "strength": 0.7}]
    )
    got = pipeline.module("dit").state_dict()[Q]
    assert (got.double() - expected(models, "float32")[Q]).abs().max() <= 1e-6
    folder = tmp_path / "model"
    shutil.copytree(models["float32"], folder)
    torch.save(load_file(folder / NETWORK), folder / "wan.ckpt")
    (folder / NETWORK).unlink()
    weights = load(folder, device="cpu", dtype="float32").module("dit").state_dict()
    assert torch.equal(weights[Q], load_file(models["float32"] / NETWORK)[Q])
