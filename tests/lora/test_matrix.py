"""LoRA files together with stored formats, offloaders, compute dtypes, and one network or two experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan22", reason="needs the Wan plugins")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.errors import RequestError  # noqa: E402
from lightx2v_core.quant.arithmetic import quantize_weight  # noqa: E402

SMALL: dict[str, Any] = {"prompt": "a fox", "size": (32, 32), "frames": 1, "steps": 2, "guide_scale": 1.0}
FORMATS = {"plain": None, "bf16": None, "fp8": "fp8-channel", "int8": "int8-channel"}
#: compute dtype of weights stored in bfloat16; the others are computed in float32
DTYPES = {"bf16": "bfloat16"}
OFFLOADERS = ("none", "sequential", "cpu", "disk")
APPLIERS = ("merge", "dynamic")


def network_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.safetensors") if "diffusion_pytorch_model" in path.name)


def quantize(folder: Path, format: str) -> None:
    """Store the linears of the blocks in a format."""
    for path in network_files(folder):
        tensors = load_file(path)
        for name in [
            n for n in tensors if n.startswith("blocks.") and n.endswith("weight") and tensors[n].ndim == 2
        ]:
            base = name.removesuffix("weight")
            tensors |= {
                f"{base}{suffix}": tensor for suffix, tensor in quantize_weight(tensors[name], format).items()
            }
        save_file(tensors, path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    from lightx2v_wan21.tiny import write_tiny
    from lightx2v_wan22.tiny import write_tiny_a14b

    root = tmp_path_factory.mktemp("matrix")

    def find(kind: str, stored: str) -> Path:
        folder = root / f"{kind}-{stored}"
        if not folder.exists():
            (write_tiny if kind == "dense" else write_tiny_a14b)(folder, 0)
            for index in folder.glob("*.index.json"):
                index.unlink()
                whole = {n: t for path in network_files(folder) for n, t in load_file(path).items()}
                for path in network_files(folder):
                    path.unlink()
                save_file(whole, folder / "diffusion_pytorch_model.safetensors")
            format = FORMATS[stored]
            if format is not None:
                quantize(folder, format)
            elif stored == "bf16":
                for path in network_files(folder):
                    save_file({name: t.bfloat16() for name, t in load_file(path).items()}, path)
        return folder

    return find


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs on every linear of a block, differences of norms, biases, modulation, patch embedding and head."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * 0.2

    tensors = {}
    for block in range(2):
        for part in (*(f"{kind}_attn.{x}" for kind in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2"):
            rows, columns = {"ffn.0": (128, 64), "ffn.2": (64, 128)}.get(part, (64, 64))
            base = f"diffusion_model.blocks.{block}.{part}"
            tensors |= {
                f"{base}.lora_down.weight": random(3, columns),
                f"{base}.lora_up.weight": random(rows, 3),
            }
            tensors[f"{base}.diff_b"] = random(rows)
        tensors[f"diffusion_model.blocks.{block}.norm3.diff"] = random(64)
        tensors[f"diffusion_model.blocks.{block}.diff_m"] = random(1, 6, 64)
    tensors["diffusion_model.patch_embedding.diff"] = random(64, 16, 1, 2, 2)
    tensors["diffusion_model.head.head.diff"] = random(64, 64)
    path = tmp_path_factory.mktemp("lora") / "fox.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def latents(models: Callable[[str, str], Path], lora: Path) -> Callable[..., Any]:
    """The latents of a run, remembered."""
    known: dict[tuple[Any, ...], Any] = {}

    def make(
        kind: str, stored: str, applier: str | None, offloader: str = "none", dtype: str = "float32"
    ) -> Any:
        key = (kind, stored, applier, offloader, dtype)
        if key not in known:
            options: dict[str, Any] = {"offloader": offloader, "dtype": dtype, "device": "cpu"}
            if applier is not None:
                options |= {
                    "lora_applier": applier,
                    "loras": [{"path": str(lora), "strength": 0.5, "name": "dit"}],
                }
            with load(models(kind, stored), **options) as pipeline:
                assert all(not plan.unmatched and not plan.mismatched for plan in pipeline.plan.adapters)
                known[key] = pipeline.generate(**SMALL).latents
        return known[key]

    return make


def distance(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("offloader", OFFLOADERS)
@pytest.mark.parametrize("applier", APPLIERS)
@pytest.mark.parametrize("stored", FORMATS)
@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_formats_offloaders_and_experts(
    kind: str, stored: str, applier: str, offloader: str, latents: Callable[..., Any]
) -> None:
    if offloader in ("cpu", "disk"):
        pytest.importorskip("lightx2v_offload", reason="needs the offload plugin")
    dtype = DTYPES.get(stored, "float32")
    got = latents(kind, stored, applier, offloader, dtype)
    assert torch.equal(got, latents(kind, stored, applier, "none", dtype))
    exact = latents(kind, "plain", "merge")
    without = latents(kind, stored, None, "none", dtype)
    assert distance(got, without) > 0.05
    bound = {"plain": 1e-4, "bf16": 0.03, "fp8": 0.06, "int8": 0.015}[stored]
    assert distance(got, exact) < bound, "as far from the merged one as the format makes it"


@pytest.mark.parametrize("applier", APPLIERS)
@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_bfloat16(kind: str, applier: str, latents: Callable[..., Any]) -> None:
    got = latents(kind, "plain", applier, dtype="bfloat16")
    assert distance(got, latents(kind, "plain", "merge")) < 0.03
    assert distance(got, latents(kind, "plain", None, dtype="bfloat16")) > 0.05


@pytest.mark.parametrize("quantizer", ["fp8-torch", "int8-torch"])
def test_kernels_that_round_activations(
    quantizer: str, models: Callable[[str, str], Path], lora: Path, latents: Callable[..., Any]
) -> None:
    stored = quantizer.split("-")[0]
    for applier in APPLIERS:
        options = {
            "lora_applier": applier,
            "loras": [{"path": str(lora), "strength": 0.5}],
            "device": "cpu",
            "dtype": "float32",
        }
        try:
            pipeline = load(models("dense", stored), quantizer=quantizer, **options)
        except RequestError as exc:
            pytest.skip(f"refused here with a reason: {exc}")
        got = pipeline.generate(**SMALL).latents
        assert distance(got, latents("dense", "plain", "merge")) < 0.3


def test_quantized_layers_are_quantized_again_and_others_left_alone(
    models: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Merging changes the codes of its layers only, in their format, and taking it away brings the old ones back."""
    model = models("dense", "int8")
    save_file(
        {
            "blocks.0.self_attn.q.lora_A.weight": torch.randn(2, 64),
            "blocks.0.self_attn.q.lora_B.weight": torch.randn(64, 2),
            "blocks.0.self_attn.k.diff_b": torch.ones(64),
        },
        tmp_path / "fox.safetensors",
    )
    pipeline = load(model, device="cpu", dtype="float32")
    network = pipeline.module("dit")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pipeline.set_loras([tmp_path / "fox.safetensors"])
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        "blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.weight_scale", "blocks.0.self_attn.k.bias",
    }  # fmt: skip
    assert after["blocks.0.self_attn.q.weight"].dtype == torch.int8
    pipeline.set_loras([])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
