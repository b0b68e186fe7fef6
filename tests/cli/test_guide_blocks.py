"""The blocks of the guides that name a kernel of vLLM, as they stand there, run on any machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
wan22 = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")

Cli = Callable[..., Any]
NAMES = {"original": "wan2.1_i2v_720p_lightx2v_4step", "fp8": "wan2.1_i2v_720p_scaled_fp8_e4m3_lightx2v_4step",
         "int8": "wan2.1_i2v_720p_int8_lightx2v_4step"}  # fmt: skip
MM_TYPE = {"mm_config": {"mm_type": "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Vllm"}}
ENCODERS = {
    "t5_quantized": True,
    "t5_quant_scheme": "fp8",
    "clip_quantized": True,
    "clip_quant_scheme": "fp8",
}
T5 = "models_t5_umt5-xxl-enc-bf16.pth"


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """``convert SRC --quantize FORMAT --output FILE`` in this process."""
    from lightx2v_core.cli import main

    def call(source: Path, format: str, output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(source), "--quantize", format, "--output", str(output), "--quiet"])
        assert not caught.value.code

    return call


@pytest.fixture(scope="module")
def multi(tiny: Path, convert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with several files in one, as the guide of formats has it."""
    folder = tmp_path_factory.mktemp("multi") / "wan2.1_i2v_720p_multi"
    folder.mkdir()
    for item in tiny.iterdir():
        if not item.name.startswith("diffusion_pytorch_model"):
            (shutil.copytree if item.is_dir() else shutil.copy)(item, folder / item.name)
    network = folder.parent / "network"
    network.mkdir()
    for item in [*tiny.glob("diffusion_pytorch_model*"), tiny / "config.json"]:
        shutil.copy(item, network)
    for precision, name in NAMES.items():
        format = "none" if precision == "original" else precision
        convert(network, format, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def structured(multi: Path, convert: Any) -> Path:
    """A folder by precision, as the guide of structure has it, with ``fp8`` alone."""
    folder = multi.parent / "structured"
    (folder / "fp8").mkdir(parents=True)
    for name in ("google", "Wan2.1_VAE.pth", "config.json"):
        item = multi / name
        (shutil.copytree if item.is_dir() else shutil.copy)(item, folder / name)
    shutil.copy(multi / f"{NAMES['fp8']}.safetensors", folder / "fp8" / "network.safetensors")
    convert(multi / T5, "fp8", folder / "fp8" / "models_t5_umt5-xxl-enc-fp8.safetensors")
    return folder


def run(cli: Cli, out: Path, folder: Path, block: dict[str, Any], *more: object) -> list[str]:
    """Check, and run on the CPU; the notes of the plan."""
    (out / "block.json").write_text(json.dumps(block))
    cli("config", "check", out / "block.json").succeeded()
    line = (out / "block.json", "--model-path", folder, "--device", "cpu", "--prompt", "x", *more)
    small = ("--size", "32x32", "--frames", "5")
    cli("run", *line, *small, "--output", out / "o.mp4", "--quiet").succeeded()
    assert (out / "o.mp4").is_file()
    notes: list[str] = json.loads(cli("plan", *line, *small, "--json").out)["plan"]["notes"]
    return notes


def check_wish(notes: list[str], name: str) -> None:
    """At most one note tells of the kernel; none where it can be used."""
    assert len([note for note in notes if f"'{name}'" in note]) <= 1


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_network_of_a_folder_with_several(cli: Cli, out: Path, multi: Path, precision: str) -> None:
    block = {"dit_quantized_ckpt": f"{multi}/{NAMES[precision]}.safetensors", "dit_quantized": True,
             "dit_quant_scheme": f"{precision}-vllm"}  # fmt: skip
    check_wish(run(cli, out, multi, block, "--model_cls", "wan2.1_distill"), f"{precision}-vllm")


def test_its_original(cli: Cli, out: Path, multi: Path) -> None:
    run(
        cli,
        out,
        multi,
        {"dit_original_ckpt": f"{multi}/{NAMES['original']}.safetensors"},
        "--model_cls",
        "wan2.1",
    )


@pytest.mark.parametrize(
    "block", [{**MM_TYPE, **ENCODERS}, MM_TYPE | {"t5_original_ckpt": T5}], ids=["quantized", "mixed"]
)
def test_folders_by_precision(
    cli: Cli, out: Path, multi: Path, structured: Path, block: dict[str, Any]
) -> None:
    if "t5_original_ckpt" in block:
        block = {**block, "t5_original_ckpt": str(multi / T5)}
    check_wish(run(cli, out, structured, block, "--model_cls", "wan2.1", "--steps", 2), "fp8-vllm")


def test_both_files_and_the_type_that_decides(cli: Cli, out: Path, multi: Path) -> None:
    block = {"dit_quantized_ckpt": f"{multi}/{NAMES['fp8']}.safetensors",
             "dit_original_ckpt": f"{multi}/{NAMES['original']}.safetensors", **MM_TYPE}  # fmt: skip
    check_wish(run(cli, out, multi, block, "--model_cls", "wan2.1_distill"), "fp8-vllm")


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_two_experts(cli: Cli, out: Path, convert: Any, tmp_path: Path, precision: str) -> None:
    folder, block = tmp_path / "plain", {"dit_quantized": True, "dit_quant_scheme": f"{precision}-vllm"}
    wan22.write_tiny_a14b(folder, 0)
    mark = {"fp8": "fp8_e4m3", "int8": "int8"}[precision]
    for expert in ("high_noise", "low_noise"):
        file = tmp_path / f"{expert}_model" / f"wan2.2_i2v_A14b_{expert}_{mark}_lightx2v_4step.safetensors"
        convert(folder / f"{expert}_model", precision, file)
        block[f"{expert}_quantized_ckpt"] = str(file)
    check_wish(run(cli, out, folder, block, "--model_cls", "wan2.2_moe_distill"), f"{precision}-vllm")
