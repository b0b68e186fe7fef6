"""Every layout of the same weights is recognized, explained, and makes the same latents, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.errors import CheckpointError  # noqa: E402
from lightx2v_core.inspection.inspect import inspect  # noqa: E402
from lightx2v_core.plan.plan import Plan  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402

Arrange = Callable[[str], Path]
REQUEST = {"size": [32, 32], "frames": 5, "steps": 2, "seed": 3}
T5, VAE = "models_t5_umt5-xxl-enc-bf16", "Wan2.1_VAE"


def planned(folder: Path, **config: Any) -> Plan:
    return resolve(load_config({"model_path": str(folder), **config}), load_plugins()).plan


def part(plan: Plan, name: str) -> Any:
    return next(item for item in plan.components if item.name == name)


def latents(folder: Path, **config: Any) -> torch.Tensor:
    pipeline = load(folder, config={"scheduler": "euler", "sampling": {"guide_scale": 5}, **config})
    found: torch.Tensor = pipeline.generate(prompt="a fox", **REQUEST).latents
    return found


@pytest.fixture(scope="module")
def official_latents(tiny_wan: Path) -> torch.Tensor:
    return latents(tiny_wan)


@pytest.mark.parametrize(
    ("layout", "network", "rule", "distilled"),
    [
        ("official", "official", "index diffusion_pytorch_model.safetensors.index.json", False),
        ("single", "official", "file *.safetensors", True),
        ("single_ordinary", "official", "file *.safetensors", False),
        ("original", "official", "block files original/*.safetensors", False),
        ("distill_models", "official", "file distill_models/distill_model.*", True),
        ("legacy_pickle", "official", "file distill_model.*", True),
        ("comfyui", "comfyui", "file diffusion_models/*.safetensors", False),
        ("all_in_one", "all-in-one", "file *.safetensors", False),
        ("all_in_one_of_old", "all-in-one", "file *.safetensors", False),
        ("embedding_of_the_encoder", "official", "file *.safetensors", False),
        ("diffusers", "diffusers", "index diffusion_pytorch_model.safetensors.index.json", False),
    ],
)
def test_a_layout_is_recognized_and_runs(
    arrange: Arrange, official_latents: torch.Tensor, layout: str, network: str, rule: str, distilled: bool
) -> None:
    folder = arrange(layout)
    plan = planned(folder)
    dit = part(plan, "dit")
    assert (dit.layout, dit.rule, dit.passed_over) == (network, rule, ())
    assert plan.variant.startswith("wan2.1-t2v-")
    assert plan.variant.endswith("-distill") == distilled
    assert plan.request.scheduler == ("distill" if distilled else "unipc")
    assert torch.equal(latents(folder), official_latents)


def test_inspect_names_each_part_of_a_whole_checkpoint(arrange: Arrange) -> None:
    report = inspect(arrange("all_in_one"), load_plugins())
    assert {(item.component, item.layout) for item in report.components} >= {
        ("dit", "all-in-one"), ("text_encoder", "all-in-one"), ("vae", "all-in-one")
    }  # fmt: skip
    assert report.runnable
    assert not report.problems


def test_a_file_beside_a_whole_checkpoint_comes_first(arrange: Arrange, tiny_wan: Path) -> None:
    folder = arrange("all_in_one")
    shutil.copy(tiny_wan / f"{VAE}.pth", folder)
    assert part(planned(folder), "vae").layout == "official"


def test_other_storage_is_read(arrange: Arrange, official_latents: torch.Tensor) -> None:
    folder = arrange("half")
    assert part(planned(folder), "dit").precision == "float16"
    difference = (latents(folder) - official_latents).abs().max()
    assert 0 < difference < 0.1


def test_encoders_from_elsewhere(arrange: Arrange, tmp_path: Path, official_latents: torch.Tensor) -> None:
    """As safetensors, in another folder, by explicit paths: a file and a folder."""
    folder, other = arrange("official"), tmp_path / "elsewhere"
    other.mkdir()
    save_file(torch.load(folder / f"{T5}.pth", weights_only=True), other / "text.safetensors")
    shutil.move(folder / f"{VAE}.pth", other / "any.pth")
    (folder / f"{T5}.pth").unlink()
    paths = {"text_encoder": {"path": str(other / "text.safetensors")}, "vae": {"path": str(other)}}
    plan = planned(folder, components=paths)
    assert part(plan, "text_encoder").rule == "components.text_encoder.path in config"
    assert part(plan, "vae").rule == "components.vae.path in config, file *.pth"
    assert torch.equal(latents(folder, components=paths), official_latents)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dit", ("components.dit.path", "does not exist")),
        ("text_encoder", ("components.text_encoder.path", "does not exist")),
    ],
)
def test_a_missing_explicit_path_names_its_key(arrange: Arrange, name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError) as caught:
        planned(arrange("official"), components={name: {"path": "/no/such/file"}})
    assert all(word in str(caught.value) for word in words)


def test_an_explicit_file_of_something_else_is_refused(arrange: Arrange) -> None:
    folder = arrange("official")
    with pytest.raises(CheckpointError, match=r"components.dit.path .* is not a diffusion transformer"):
        planned(folder, components={"dit": {"path": str(folder / f"{VAE}.pth")}})


def test_two_networks_side_by_side_have_to_be_told_apart(arrange: Arrange) -> None:
    folder = arrange("single_ordinary")
    shutil.copy(folder / "my_wan.safetensors", folder / "wan_lightx2v_4step.safetensors")
    with pytest.raises(CheckpointError) as caught:
        planned(folder)
    message = str(caught.value)
    assert "more than one diffusion transformer" in message
    assert "my_wan.safetensors (float32)" in message
    assert "wan_lightx2v_4step.safetensors (float32, distilled)" in message
    assert "components.dit.path" in message
    assert "components.dit.distilled (true or false)" in message
    plan = planned(folder, components={"dit": {"distilled": True}})
    assert part(plan, "dit").files[0].endswith("wan_lightx2v_4step.safetensors")
    assert part(plan, "dit").passed_over == ("my_wan.safetensors (float32)",)
    plan = planned(folder, components={"dit": {"path": str(folder / "my_wan.safetensors")}})
    assert part(plan, "dit").files[0].endswith("my_wan.safetensors")


def test_official_shards_beside_a_single_file_are_ambiguous_too(arrange: Arrange, tiny_wan: Path) -> None:
    folder = arrange("single_ordinary")
    for file in tiny_wan.glob("diffusion_pytorch_model*"):
        shutil.copy(file, folder / file.name)
    with pytest.raises(CheckpointError, match="more than one diffusion transformer"):
        planned(folder)


def test_a_precision_that_is_not_there(arrange: Arrange) -> None:
    folder = arrange("official")
    with pytest.raises(CheckpointError) as caught:
        planned(folder, components={"dit": {"precision": "fp8"}})
    assert "components.dit: no diffusion transformer" in str(caught.value)
    assert "is fp8; found:" in str(caught.value)
    assert "(float32)" in str(caught.value)
    with pytest.raises(CheckpointError, match="unknown precision 'fp88'; did you mean 'fp8'"):
        planned(folder, components={"dit": {"precision": "fp88"}})


def test_what_is_passed_over_is_named(arrange: Arrange) -> None:
    """A second VAE, in a folder by precision: the one beside the network is taken."""
    folder = arrange("official")
    (folder / "fp8").mkdir()
    shutil.copy(folder / f"{VAE}.pth", folder / "fp8" / f"{VAE}.pth")
    vae = part(planned(folder), "vae")
    assert vae.files == (str(folder / f"{VAE}.pth"),)
    assert vae.passed_over == (f"fp8/{VAE}.pth (float32)",)


def test_a_name_that_claims_another_precision_is_doubted(arrange: Arrange) -> None:
    folder = arrange("single_ordinary")
    (folder / "my_wan.safetensors").rename(folder / "my_wan_fp8.safetensors")
    (doubt,) = planned(folder).warnings
    assert "the file name says fp8, but its weights are float32; the tensors decide" in doubt
