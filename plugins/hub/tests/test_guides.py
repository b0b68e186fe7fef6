"""The repositories of the guides: the files fetched of each, and plans of the resulting folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")


from lightx2v_core.api import ModelSpec, load_plugins
from lightx2v_core.testing.hub import Hub, serve_hub
from lightx2v_hub.remote import Listing, RemoteFile
from lightx2v_hub.repositories import CatalogEntry, DownloadRequest, catalog, find, sources
from lightx2v_hub.selection import FileSelection, select_files

from .wan import CLIP, T5, Repositories, write_repositories

TEXT, TOKENIZER, IMAGE, VAE = (
    f"{T5}-bf16.pth",
    "google/umt5-xxl/tokenizer.json",
    f"{CLIP}.pth",
    "Wan2.1_VAE.pth",
)
SHARDS = {
    "diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
}  # fmt: skip
FILE = "diffusion_pytorch_model.safetensors"
DISTILLED = "Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    return write_repositories(tmp_path_factory.mktemp("repositories"))


@pytest.fixture(scope="module")
def entries() -> tuple[CatalogEntry, ...]:
    plugins = load_plugins(only=["wan21", "wan22"])
    models = [provided.spec for provided in plugins.provided("model")]
    return catalog([model for model in models if isinstance(model, ModelSpec)])


@pytest.fixture(scope="module")
def hub(repositories: Repositories) -> Iterator[Hub]:
    with serve_hub(repositories) as hub:
        yield hub


def select(
    repositories: Repositories, entries: tuple[CatalogEntry, ...], what: str, **options: Any
) -> FileSelection:
    def listed(repo: str) -> Listing:
        files = [
            RemoteFile(repo=repo, commit="0", path=path, size=1, sha256=None, blob=f"{repo}/{path}")
            for path in repositories[repo]
        ]
        return Listing(repo=repo, commit="0", files=tuple(files))

    request = DownloadRequest(what=what, **options)
    entry = find(request, entries)
    assert entry is not None
    return select_files(request, sources(entry, entries), listed)


def fp8(folder: str) -> set[str]:
    files = ("block_0.safetensors", "block_1.safetensors", "non_block.safetensors", "config.json", VAE)
    return {f"{folder}/{name}" for name in (*files, f"{T5}-fp8.pth", "clip-fp8.pth")}


@pytest.mark.parametrize(
    ("what", "options", "targets"),
    [
        ("Wan-AI/Wan2.1-T2V-1.3B", {}, {*SHARDS, "config.json", TEXT, TOKENIZER, VAE}),
        ("Wan-AI/Wan2.1-I2V-14B-720P", {}, {*SHARDS, "config.json", TEXT, TOKENIZER, IMAGE, VAE}),
        ("Wan-AI/Wan2.1-VACE-14B", {}, {*SHARDS, "config.json", TEXT, TOKENIZER, VAE}),
        (
            "Wan-AI/Wan2.2-I2V-A14B",
            {"task": "flf2v"},
            {f"{expert}_noise_model/{name}" for expert in ("high", "low") for name in (FILE, "config.json")}
            | {TEXT, TOKENIZER, VAE},
        ),
        ("Wan-AI/Wan2.2-TI2V-5B", {}, {FILE, "config.json", TEXT, TOKENIZER, "Wan2.2_VAE.pth"}),
        ("Wan-AI/Wan2.2-Animate-14B", {}, {FILE, "config.json", TEXT, TOKENIZER, IMAGE, VAE}),
        (
            "wan2.1-i2v-14b-720p-distill",
            {"precisions": {"": ("original", "fp8", "int8")}},
            {f"wan2.1_i2v_720p_{name}lightx2v_4step.safetensors" for name in ("", "scaled_fp8_e4m3_", "int8_")}
            | {"config.json", TEXT, TOKENIZER, IMAGE, VAE},
        ),
        (
            "lightx2v/Wan2.1-Distill-Models",
            {"task": "t2v", "precisions": {"": ("fp8-comfyui",)}},
            {"wan2.1_t2v_14b_scaled_fp8_e4m3_lightx2v_4step_comfyui.safetensors", "config.json", TEXT, TOKENIZER, VAE},
        ),
        (
            "lightx2v/Wan2.2-Distill-Models",
            {"task": "i2v", "precisions": {"dit": ("fp8",)}},
            {
                f"{expert}_model/wan2.2_i2v_A14b_{expert}_scaled_fp8_e4m3_lightx2v_4step.safetensors"
                for expert in ("high_noise", "low_noise")
            }
            | {f"{expert}_noise_model/config.json" for expert in ("high", "low")}
            | {TEXT, TOKENIZER, VAE},
        ),
        (
            "lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-LightX2V",  # as the guide spells it
            {"precisions": {"": ("fp8",)}},
            fp8("distill_fp8") | {TOKENIZER},
        ),
        (
            DISTILLED,  # the guide's second scenario: quantized network, original encoders
            {"precisions": {"": ("fp8",), "text_encoder": ("original",), "image_encoder": ("original",)}},
            fp8("distill_fp8") - {f"distill_fp8/{T5}-fp8.pth", "distill_fp8/clip-fp8.pth"}
            | {f"distill_models/{TEXT}", f"distill_models/{IMAGE}", TOKENIZER},
        ),
        (
            "wan2.1-i2v-14b-480p-lightx2v",
            {"extra": ("tiny_vae",)},
            {f"original/{name}" for name in ("diffusion_pytorch_model.safetensors", "config.json", TEXT, IMAGE, VAE)}
            | {TOKENIZER, "original/taew2_1.pth"},
        ),
        ("wan2.1", {"task": "i2v", "lora": True}, {"loras/wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors"}),
        (
            "lightx2v/Wan2.2-Distill-Loras",
            {"task": "i2v"},
            {
                f"loras/wan2.2_i2v_A14b_{expert}_noise_lora_rank64_lightx2v_4step_1022.safetensors"
                for expert in ("high", "low")
            },
        ),
        ("wan2.2-ti2v-autoencoders", {"extra": ("tiny_vae",)}, {"taew2_2.pth"}),
    ],
    ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_taken_of_a_repository(
    repositories: Repositories,
    entries: tuple[CatalogEntry, ...],
    what: str,
    options: dict[str, Any],
    targets: set[str],
) -> None:
    selection = select(repositories, entries, what, **options)
    assert {file.target for file in selection.files} == targets


def test_every_repository_of_the_guides_has_a_name(entries: tuple[CatalogEntry, ...]) -> None:
    known = {entry.repository.repo.casefold() for entry in entries}
    named = {
        *(f"Wan-AI/Wan2.1-{name}" for name in ("I2V-14B-720P", "I2V-14B-480P", "T2V-14B", "T2V-1.3B", "FLF2V-14B-720P",
                                               "VACE-14B", "VACE-1.3B")),
        *(f"Wan-AI/Wan2.2-{name}" for name in ("I2V-A14B", "T2V-A14B", "TI2V-5B", "Animate-14B")),
        *(f"lightx2v/Wan{version}-Distill-{what}" for version in ("2.1", "2.2") for what in ("Models", "Loras")),
        "lightx2v/Wan2.1-I2V-14B-480P-LightX2V",
        "lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-LightX2V",
    }  # fmt: skip
    assert {name.casefold() for name in named} <= known


def test_components_are_those_of_the_models(entries: tuple[CatalogEntry, ...]) -> None:
    """Files that accompany a component have another name, and a LoRA is not a component."""
    beside = {"tokenizer", "config", "high_noise_config", "low_noise_config", "lora", "high_noise_lora",
              "low_noise_lora", "light_vae", "light_tiny_vae"}  # fmt: skip
    for entry in entries:
        components = {component.name for component in entry.model.components}
        assert {files.component for files in entry.repository.files} <= components | beside, entry.name


@pytest.fixture(scope="module")
def cli(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("work")
    from PIL import Image

    Image.new("RGB", (64, 48)).save(folder / "fox.png")
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "LIGHTX2V_PLUGINS": "hub,wan21,wan22",
    }

    def run(*arguments: str) -> list[dict[str, Any]]:
        line = [sys.executable, "-m", "lightx2v_core", *arguments, "--json"]
        done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return [json.loads(text) for text in done.stdout.splitlines()]

    return run


@pytest.mark.parametrize(
    ("arguments", "variant", "scheduler"),
    [
        (("wan2.1-t2v-1.3b",), "wan2.1-t2v-", "unipc"),
        (("wan2.1-i2v-14b-720p-distill",), "wan2.1-i2v-", "distill"),
        (("lightx2v/Wan2.2-Distill-Models", "--task", "i2v"), "wan2.2-i2v-", "distill"),
        (("wan2.1-i2v-14b-480p-stepdistill",), "wan2.1-i2v-", "distill"),
        (("wan2.1-i2v-14b-480p-lightx2v",), "wan2.1-i2v-", "unipc"),
        (("wan2.2-ti2v-5b", "--task", "i2v"), "wan2.2-ti2v-", "unipc"),
    ],
    ids=lambda value: value[0].rpartition("/")[2] if isinstance(value, tuple) else "",
)
def test_what_was_put_together_plans(
    cli: Any, tmp_path: Path, arguments: tuple[str, ...], variant: str, scheduler: str
) -> None:
    """With the command that the download prints at its end."""
    ready, *_, downloaded = cli("download", *arguments, "--to", str(tmp_path / "model"))
    command = downloaded["commands"][0].split()
    assert command[:2] == ["lightx2v-core", "plan"]
    (event,) = cli(*["fox.png" if word == "FILE" else word for word in command[1:]])
    plan = event["plan"]
    assert plan["variant"].startswith(variant)
    assert plan["request"]["scheduler"] == scheduler
    used = {Path(file).name for component in plan["components"] for file in component["files"]}
    fetched = {Path(file["target"]).name for file in ready["files"]}
    assert {name for name in fetched if name.endswith((".safetensors", ".pth"))} == used
