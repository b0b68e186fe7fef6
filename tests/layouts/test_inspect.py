"""``inspect`` and the choice of files, on the guides' folders at their real sizes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightx2v_core.cli.show_inspection import inspection_text
from lightx2v_core.config.load import load_config, parse_set
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.errors import CheckpointError
from lightx2v_core.inspection.inspect import inspect
from lightx2v_core.inspection.report import Inspection
from lightx2v_core.plan.resolve import resolve, runnable


@pytest.fixture(scope="module")
def plugins() -> PluginSet:
    return load_plugins()


def chosen(folder: Path, plugins: PluginSet, **components: Any) -> dict[str, str]:
    """Component -> the first file of it, by the rules for ``components``."""
    from lightx2v_core.discovery.registry import Registry
    from lightx2v_core.plan.recognize import read_header

    loaded = load_config({"model_path": str(folder), "components": components})
    found = runnable(loaded, plugins, lambda path: read_header(Registry(plugins), path))
    return {name: str(c.files[0].relative_to(folder)) for name, c in found.components.items()}


def report(folder: Path, plugins: PluginSet) -> tuple[Inspection, dict[str, Any]]:
    found = inspect(folder, plugins)
    parts = {}
    for item in found.components:
        parts[item.files[0]] = (item.component, item.layout, item.scheme or item.precision)
    return found, parts


def test_several_precisions_in_one_folder(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    folder = guides.single_files(tmp_path / "m", "original", "fp8", "int8")
    stem = "wan2.1_i2v_480p_"
    with pytest.raises(CheckpointError) as caught:
        chosen(folder, plugins)
    message = str(caught.value)
    for line in (
        f"{stem}lightx2v_4step.safetensors (bfloat16, distilled)",
        f"{stem}scaled_fp8_e4m3_lightx2v_4step.safetensors (fp8, distilled)",
        f"{stem}int8_lightx2v_4step.safetensors (int8, distilled)",
        "components.dit.precision (fp8, int8, original)",
    ):
        assert line in message
    for precision, name in (("original", ""), ("bf16", ""), ("fp8", "scaled_fp8_e4m3_"), ("int8", "int8_")):
        found = chosen(folder, plugins, dit={"precision": precision})
        assert found["dit"] == f"{stem}{name}lightx2v_4step.safetensors"
    found, parts = report(folder, plugins)
    assert parts[f"{stem}int8_lightx2v_4step.safetensors"] == ("dit", "official", "int8-channel")
    assert parts[f"{stem}scaled_fp8_e4m3_lightx2v_4step.safetensors"] == ("dit", "official", "fp8-channel")
    assert found.problems == ()
    assert {run.variant for run in found.runnable} == {"wan2.1-i2v-14b-distill"}
    assert len(found.runnable) == 3


def needs_a_quantizer(plugins: PluginSet) -> None:
    if not plugins.provided("quantizer"):
        pytest.skip("no quantizer is installed, so a plan of quantized files says so and ends")


def test_one_file_is_taken(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    needs_a_quantizer(plugins)
    folder = guides.single_files(tmp_path / "m", "int8")
    assert chosen(folder, plugins)["dit"] == "wan2.1_i2v_480p_int8_lightx2v_4step.safetensors"
    plan = resolve(load_config({"model_path": str(folder)}), plugins).plan
    assert plan.variant == "wan2.1-i2v-14b-distill"
    assert plan.components[0].scheme == "int8-channel"


def test_pairs_of_experts(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    one = guides.pairs(tmp_path / "one", "fp8")
    found = chosen(one, plugins)
    for expert in ("high_noise", "low_noise"):
        assert found[expert].startswith(f"{expert}_model/wan2.2_i2v_A14b_{expert}_scaled_fp8")
    folder = guides.pairs(tmp_path / "m", "original", "fp8", "int8")
    with pytest.raises(CheckpointError, match="more than one high-noise expert"):
        chosen(folder, plugins)
    found = chosen(folder, plugins, dit={"precision": "int8"})
    assert "int8" in found["high_noise"]
    assert "int8" in found["low_noise"]
    found = chosen(folder, plugins, high_noise={"precision": "fp8"}, low_noise={"precision": "original"})
    assert "fp8" in found["high_noise"]
    assert found["low_noise"] == "low_noise_model/wan2.2_i2v_A14b_low_noise_lightx2v_4step.safetensors"
    with pytest.raises(
        CheckpointError, match=r"components\.high_noise\.path and components\.low_noise\.path"
    ):
        chosen(folder, plugins, dit={"path": str(folder / found["low_noise"])})


def test_structured_folders(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    folder = guides.structured(tmp_path / "m", "original", "fp8", "int8")
    assert chosen(folder, plugins) == {
        "dit": "original/block_0.safetensors",
        "text_encoder": "original/models_t5_umt5-xxl-enc-bf16.pth",
        "image_encoder": "original/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "vae": "original/Wan2.1_VAE.pth",
    }
    found = chosen(folder, plugins, dit={"precision": "fp8"}, text_encoder={"precision": "int8"})
    assert found["dit"] == "fp8/block_0.safetensors"
    assert found["text_encoder"] == "int8/models_t5_umt5-xxl-enc-int8.safetensors"
    assert found["vae"] == "fp8/Wan2.1_VAE.pth"
    inspected, parts = report(folder, plugins)
    assert parts["fp8/block_0.safetensors"] == ("dit", "official", "fp8-channel")
    assert inspected.problems == ()
    commands = [run.command for run in inspected.runnable]
    assert len(commands) == 3
    assert any("components.dit.precision=fp8" in command for command in commands)


@pytest.mark.parametrize("place", ["fp8", "distill_int8", "distill_models"])
def test_any_part_of_the_structured_folders(
    guides: ModuleType, plugins: PluginSet, tmp_path: Path, place: str
) -> None:
    folder = guides.structured(tmp_path / "m", place)
    found = chosen(folder, plugins)
    assert {path.partition("/")[0] for path in found.values()} == {place}
    inspected, _ = report(folder, plugins)
    (run,) = inspected.runnable
    assert run.variant.endswith("-distill") == place.startswith("distill")


def test_two_quantized_folders_and_nothing_else(
    guides: ModuleType, plugins: PluginSet, tmp_path: Path
) -> None:
    folder = guides.structured(tmp_path / "m", "distill_fp8", "distill_int8")
    with pytest.raises(CheckpointError) as caught:
        chosen(folder, plugins)
    assert "distill_fp8/block_0.safetensors and 40 more (fp8, distilled)" in str(caught.value)
    assert chosen(folder, plugins, dit={"precision": "fp8"}, text_encoder={"precision": "fp8"})


def test_comfyui_folder(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    needs_a_quantizer(plugins)
    folder = guides.comfyui(tmp_path / "m")
    found, parts = report(folder, plugins)
    network = "diffusion_models/wan2.1_t2v_14B_fp8_scaled.safetensors"
    assert parts[network] == ("dit", "comfyui", "fp8-tensor")
    assert parts["text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors"][2] == "fp8-tensor"
    assert found.problems == ()
    (run,) = found.runnable
    assert run.variant == "wan2.1-t2v-14b"
    plan = resolve(load_config({"model_path": str(folder)}), plugins).plan
    assert [part.files[0] for part in plan.components] == [
        str(folder / network),
        str(folder / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        str(folder / "vae" / "Wan2.1_VAE.pth"),
    ]


def test_loras_with_their_coverage(guides: ModuleType, plugins: PluginSet, tmp_path: Path) -> None:
    folder = guides.official(tmp_path / "m", guides.I2V)
    guides.lora(folder / "loras" / "wan21_lora_rank64.safetensors", guides.I2V)
    found, _ = report(folder, plugins)
    (lora,) = found.loras
    assert (lora.file, lora.ranks) == ("loras/wan21_lora_rank64.safetensors", (64,))
    fits, total = lora.coverage["wan2.1-i2v-14b"]
    assert fits == total == 3 * 480
    assert lora.targets["blocks.N.self_attn.q"] == 2 * 40  # a pair and a bias each
    text = inspection_text(found)
    assert "rank 64" in text
    assert "blocks.N.self_attn.q (80)" in text
    assert f"{total} of {total} tensors fit wan2.1-i2v-14b" in text


def test_every_command_that_is_shown_can_be_planned(
    guides: ModuleType, plugins: PluginSet, tmp_path: Path
) -> None:
    needs_a_quantizer(plugins)
    folder = guides.structured(tmp_path / "m", "original", "int8")
    found, _ = report(folder, plugins)
    assert len(found.runnable) == 2
    for run in found.runnable:
        words = shlex.split(run.command)
        assert words[:4] == ["lightx2v-core", "run", "--model-path", str(folder)]
        sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        loaded = load_config({"model_path": str(folder)}, [parse_set(text) for text in sets])
        assert resolve(loaded, plugins).plan.variant == run.variant


@pytest.mark.load
@pytest.mark.alone
@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_two_seconds_and_500_mb(guides: ModuleType, tmp_path: Path, command: str) -> None:
    """In a process of its own, with everything that starting takes; relative to starting at all on a busy machine."""
    folder = guides.official(tmp_path / "m", guides.I2V)
    code = (
        "import sys, time\n"
        "from lightx2v_core.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "seconds = time.process_time()\n"
        # the peak of this program alone: getrusage starts from that of the process that started it
        "status_lines = open('/proc/self/status').read().splitlines()\n"
        "memory = next(line.split()[1] for line in status_lines if line.startswith('VmHWM'))\n"
        "print(seconds, memory, status, file=sys.stderr)"
    )
    path = ["--model-path"] if command == "plan" else []
    result = subprocess.run(
        [sys.executable, "-c", code, command, *path, str(folder), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, memory, status = result.stderr.split()[-3:]
    assert status == "0"
    assert json.loads(result.stdout)
    assert float(seconds) < 2
    assert int(memory) < 500_000
