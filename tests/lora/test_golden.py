"""Reference LoRA files in every family of names and strength, merged and attached, against the official network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from lightx2v_core import load  # noqa: E402

FAMILIES = (
    "lora_ab_diffusion_model", "lora_down_up_alpha", "kohya_lora_unet", "lightx2v_diff", "peft_default",
    "diffusers_names",
)  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny model around the network of the reference case, whose files lie beside it."""
    from lightx2v_wan21.tiny import write_tiny

    repository = Path(__file__).resolve().parents[2]
    roots = (repository.parent / "shared" / "golden", repository / "tests" / "golden")
    source = next((root / "lora_wan21_t2v" for root in roots if (root / "lora_wan21_t2v").is_dir()), None)
    if source is None:
        pytest.skip("golden case 'lora_wan21_t2v' is not available")
    folder = tmp_path_factory.mktemp("lora") / "case"
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    for item in (folder, *folder.rglob("*")):
        item.chmod(0o755 if item.is_dir() else 0o644)
    write_tiny(folder / "tiny", 0)
    for part in (folder / "tiny").iterdir():
        if part.suffix != ".safetensors" and "diffusion" not in part.name and part.name != "config.json":
            shutil.move(part, folder / "ckpt" / part.name)
    return folder


@pytest.fixture(scope="module")
def outputs(case: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_file(case / "outputs.safetensors")
    return found


def entry(case: Path, name: str, strength: float) -> dict[str, Any]:
    return {"path": str(case / "loras" / f"{name}.safetensors"), "strength": strength}


def network(case: Path, loras: Sequence[dict[str, Any]], applier: str, **more: Any) -> Any:
    pipeline = load(
        case / "ckpt", loras=list(loras), lora_applier=applier, dtype="float32", device="cpu", **more
    )
    return pipeline.module("dit")


def forward(dit: Any, case: Path) -> Any:
    inputs = load_file(case / "inputs.safetensors")
    x, context = inputs["x"], inputs["context.0"]
    padded = F.pad(context, (0, 0, 0, dit.arch.text_len - len(context)))[None]
    with torch.no_grad():
        return dit(x, inputs["t"], padded, dit.rope(x.shape[1:], "cpu"))


def tolerance(case: Path, what: str) -> dict[str, float]:
    found = json.loads((case / "case.json").read_text())["tolerance"][what]
    return {"atol": found["atol"], "rtol": found.get("rtol", 0.0)}


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_at_each_strength(
    family: str, strength: float, case: Path, outputs: dict[str, Any]
) -> None:
    run = f"{family}.s{strength}"
    merged = network(case, [entry(case, family, strength)], "merge")
    weights = merged.state_dict()
    expected = {
        n.removeprefix(f"{run}.merged."): t for n, t in outputs.items() if n.startswith(f"{run}.merged.")
    }
    assert expected or strength != 1
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, **tolerance(case, "merged"))
    got = forward(merged, case)
    torch.testing.assert_close(got, outputs[f"{run}.out"], **tolerance(case, "out"))
    assert (got - outputs["base.out"]).abs().max() > 1e-3

    attached = network(case, [entry(case, family, strength)], "dynamic")
    beside = forward(attached, case)
    torch.testing.assert_close(beside, outputs[f"{run}.out"], **tolerance(case, "out"))
    assert (beside - got).norm() <= 1e-5 * got.norm()
    assert attached.state_dict().keys() == weights.keys()


@pytest.mark.parametrize("applier", ["merge", "dynamic"])
def test_two_files_one_on_the_other(applier: str, case: Path, outputs: dict[str, Any]) -> None:
    stack = json.loads((case / "case.json").read_text())["stack"]
    loras = [entry(case, name, strength) for name, strength in stack]
    got = forward(network(case, loras, applier), case)
    torch.testing.assert_close(got, outputs["stack.out"], **tolerance(case, "out"))


SMALL = {"prompt": "a fox", "size": (32, 32), "frames": 1, "steps": 1, "guide_scale": 1.0}


def sequence(case: Path) -> list[list[dict[str, Any]]]:
    """List the LoRA files that are applied one after the other."""
    first = entry(case, "kohya_lora_unet", 0.5)
    diff = entry(case, "lightx2v_diff", 0.25)
    return [[first], [diff], [first, entry(case, "peft_default", -1.5)], [diff, first], [], [first]]


@pytest.fixture(scope="module")
def fresh(case: Path) -> Callable[[str, list[dict[str, Any]]], Any]:
    """``fresh(applier, loras)``: the latents of a pipeline that was loaded with just these files."""
    known: dict[str, Any] = {}

    def make(applier: str, loras: list[dict[str, Any]]) -> Any:
        key = f"{applier} {loras}"
        if key not in known:
            pipeline = load(case / "ckpt", device="cpu", dtype="float32", loras=loras, lora_applier=applier)
            known[key] = pipeline.generate(**SMALL).latents
        return known[key]

    return make


@pytest.mark.parametrize("applier", ["merge", "dynamic"])
@pytest.mark.parametrize("offloader", ["none", "sequential", "cpu", "disk"])
def test_switching_gives_what_a_fresh_load_gives(
    applier: str, offloader: str, case: Path, fresh: Callable[..., Any]
) -> None:
    if offloader in ("cpu", "disk"):
        pytest.importorskip("lightx2v_offload", reason="needs the offload plugin")
    with load(
        case / "ckpt", device="cpu", dtype="float32", lora_applier=applier, offloader=offloader
    ) as pipeline:
        plain = pipeline.generate(**SMALL).latents
        for loras in sequence(case):
            pipeline.set_loras(loras)
            got = pipeline.generate(**SMALL).latents
            assert torch.equal(got, fresh(applier, loras)), loras
            assert torch.equal(got, plain) == (not loras)
