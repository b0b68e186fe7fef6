"""The model in use: recognized, planned, run; and features of the core that need no code here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightx2v_core import load
from safetensors.torch import load_file, save_file

from lightx2v_example.kernel import StreamingAttention
from lightx2v_example.plugin import AttentionOptions
from lightx2v_example.tiny import write_tiny

REQUEST: dict[str, Any] = {"prompt": "a pebble", "size": [32, 48], "frames": 3, "steps": 3, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pebble") / "model"
    write_tiny(place, 0)
    return place


def latents(folder: Path, **config: Any) -> torch.Tensor:
    with load(folder, config=config) as pipeline:
        return pipeline.generate(**REQUEST).latents


@pytest.fixture(scope="module")
def plain(folder: Path) -> torch.Tensor:
    return latents(folder)


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightx2v_core", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_video(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pebble.mp4"
    result = cli("run", "--model-path", folder, "--prompt", "a pebble", "--scheduler", "pebble", "--attention",
                 "pebble", "--size", "32x48", "--frames", 3, "--steps", 2, "--output", out)  # fmt: skip
    assert result.returncode == 0, result.stderr
    record = json.loads(out.with_suffix(".json").read_text())
    assert "lightx2v-example" in json.dumps(record)
    assert out.stat().st_size > 500


def test_the_shape_of_everything(folder: Path) -> None:
    with load(folder) as pipeline:
        video = pipeline.generate(**REQUEST)
        assert video.latents.shape == (8, 3, 6, 4)
        assert video.frames.shape == (3, 3, 48, 32)
        assert pipeline.plan.variant == "pebble-2x64"


def test_sizes_that_do_not_divide_are_refused(folder: Path) -> None:
    result = cli("plan", "--model-path", folder, "--size", "33x48")
    assert result.returncode == 2
    assert "width must be divisible by 8: instead of 33 use 32 or 40" in result.stderr


def test_another_model_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "m" / "pebble-denoiser.safetensors")
    result = cli("plan", "--model-path", tmp_path / "m")
    assert result.returncode == 2
    assert "has no tensor 'into.weight'" in result.stderr


def test_inspect(folder: Path) -> None:
    report = json.loads(cli("inspect", folder, "--json").stdout)
    assert {part["component"] for part in report["components"]} == {"text_encoder", "denoiser", "decoder"}
    assert report["problems"] == []
    assert [run["variant"] for run in report["runnable"]] == ["pebble-2x64"]


@pytest.mark.parametrize("kernel", ["fp8-torch", "int8-torch"])
def test_quantized_while_it_is_loaded(folder: Path, plain: torch.Tensor, kernel: str) -> None:
    plan = cli("plan", "--model-path", folder, "--set", f"quantizer={kernel}")
    if plan.returncode:
        pytest.skip(plan.stderr.strip().splitlines()[-1])
    result = latents(folder, quantizer=kernel)
    difference = (result - plain).norm() / plain.norm()
    assert 0 < difference < 0.2


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_quantized_by_convert(folder: Path, plain: torch.Tensor, tmp_path: Path, format: str) -> None:
    pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
    converted = tmp_path / "model"
    shutil.copytree(folder, converted)
    (file,) = converted.glob("pebble-denoiser*.safetensors")
    file.unlink()
    done = cli("convert", folder, "--component", "denoiser", "--quantize", format, "--output", file)
    assert done.returncode == 0, done.stderr
    assert any(name.endswith(".weight_scale") for name in load_file(file))
    result = latents(converted)
    assert 0 < (result - plain).norm() / plain.norm() < 0.2


def test_offloaded(folder: Path, plain: torch.Tensor) -> None:
    assert torch.equal(latents(folder, offloader="sequential"), plain)


@pytest.mark.parametrize("applier", ["merge", "dynamic"])
def test_a_lora(folder: Path, tmp_path: Path, plain: torch.Tensor, applier: str) -> None:
    weights = load_file(folder / "pebble-denoiser.safetensors")
    name = "blocks.1.qkv"
    up, down = torch.randn(192, 4) / 4, torch.randn(4, 64) / 4
    save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, tmp_path / "a.safetensors")
    result = latents(
        folder, lora_applier=applier, loras=[{"path": str(tmp_path / "a.safetensors"), "strength": 0.5}]
    )
    changed = tmp_path / "changed"
    write_tiny(changed, 0)
    weights[f"{name}.weight"] = weights[f"{name}.weight"].float() + 0.5 * up @ down
    save_file(weights, changed / "pebble-denoiser.safetensors")
    torch.testing.assert_close(result, latents(changed), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(result, plain, atol=1e-3)


def test_options_of_the_kernel(folder: Path, plain: torch.Tensor) -> None:
    section = {"use": "pebble", "options": {"pebble": {"chunk": 5}}}
    torch.testing.assert_close(latents(folder, attention=section), plain, atol=1e-4, rtol=1e-4)
    assert StreamingAttention(AttentionOptions().chunk)(
        *(torch.randn(1, 3, 2, 8) for _ in range(3))
    ).shape == (
        1,
        3,
        2,
        8,
    )
