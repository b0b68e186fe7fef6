"""Each model in each layout that it is published in, at its real size: the variant follows from the tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.recognize import ModelMatch, read_header
from lightx2v_core.plan.resolve import runnable

#: model -> variant; those of one architecture stand for all its sizes
MODELS = {
    "Wan2.1-T2V-1.3B": "wan2.1-t2v-1.3b",
    "Wan2.1-I2V-14B-480P": "wan2.1-i2v-14b",
    "Wan2.1-FLF2V-14B-720P": "wan2.1-flf2v-14b",
    "Wan2.1-VACE-1.3B": "wan2.1-vace-1.3b",
    "Wan2.2-TI2V-5B": "wan2.2-ti2v-5b",
    "Wan2.2-Animate-14B": "wan2.2-animate-14b",
}
EXPERTS = ("Wan2.2-T2V-A14B", "Wan2.2-I2V-A14B")


@pytest.fixture(scope="module")
def plugins() -> PluginSet:
    return load_plugins()


@pytest.fixture(scope="module")
def recognize(plugins: PluginSet) -> Callable[[Path], ModelMatch]:
    read = lru_cache(maxsize=None)(lambda path: read_header(Registry(plugins), path))
    return lambda folder: runnable(load_config({"model_path": str(folder)}), plugins, read)


def single(guides: ModuleType, folder: Path, name: str) -> None:
    guides.write_network(folder / "model.safetensors", guides.REAL.network_tensors(name), "original")


def without_configuration(guides: ModuleType, folder: Path, name: str) -> None:
    single(guides, folder, name)
    (folder / "config.json").unlink()


def blocks(guides: ModuleType, folder: Path, name: str) -> None:
    guides.write_blocks(folder / "original", guides.REAL.network_tensors(name), "original")
    shutil.move(folder / "config.json", folder / "original" / "config.json")


def comfyui_fp8(guides: ModuleType, folder: Path, name: str) -> None:
    file = folder / "model_fp8_scaled_comfyui.safetensors"
    tensors = guides.REAL.network_tensors(name)
    guides.write_network(file, tensors, "fp8", comfyui=True, prefix="diffusion_model.")


def quantized(guides: ModuleType, folder: Path, name: str) -> None:
    guides.write_network(folder / "int8" / "model.safetensors", guides.REAL.network_tensors(name), "int8")


LAYOUTS = (single, without_configuration, blocks, comfyui_fp8, quantized)


@pytest.mark.parametrize("name", MODELS)
def test_one_network(
    guides: ModuleType, recognize: Callable[[Path], ModelMatch], tmp_path: Path, name: str
) -> None:
    for arrange in LAYOUTS:
        folder = guides.without_network(tmp_path / arrange.__name__, name)
        arrange(guides, folder, name)
        found = recognize(folder)
        assert found.recognition.variant == MODELS[name], arrange.__name__
        expected = guides.REAL.MODELS[name]
        assert found.recognition.tasks == expected.tasks
        architecture = found.recognition.architecture["dit"]
        # the network of Animate holds the transformer's sizes one level deeper
        assert architecture.get("dit", architecture)["num_heads"] in (12, 24, 40)


@pytest.mark.parametrize("name", EXPERTS)
def test_two_experts(
    guides: ModuleType, recognize: Callable[[Path], ModelMatch], tmp_path: Path, name: str
) -> None:
    tensors = guides.REAL.network_tensors(name)
    variant = guides.REAL.MODELS[name].variant
    places: dict[str, Callable[[str], str]] = {
        "folders": lambda expert: f"{expert}_model/any_name.safetensors",
        "distilled": lambda expert: f"distill_models/{expert}_model/x.safetensors",
        "names": lambda expert: f"wan2.2_{expert}_14B_fp16.safetensors",
        "comfyui": lambda expert: f"diffusion_models/wan2.2_{expert}_14B_fp8_scaled.safetensors",
    }
    for how, path in places.items():
        folder = guides.without_network(tmp_path / how, name)
        for expert in ("high_noise", "low_noise"):
            kind = "fp8" if how == "comfyui" else "original"
            guides.write_network(folder / path(expert), tensors, kind, comfyui=kind == "fp8")
        found = recognize(folder)
        assert found.recognition.variant == variant + ("-distill" if how == "distilled" else ""), how
        files = {key: found.components[key].files[0] for key in ("high_noise", "low_noise")}
        assert all(key in str(file.relative_to(folder)) for key, file in files.items())


def test_experts_of_diffusers(
    guides: ModuleType, recognize: Callable[[Path], ModelMatch], tmp_path: Path
) -> None:
    """``transformer`` is the high-noise expert and ``transformer_2`` the other one."""
    folder = guides.without_network(tmp_path / "m", "Wan2.2-T2V-A14B")
    for name in ("transformer", "transformer_2"):
        file = folder / name / "diffusion_pytorch_model.safetensors"
        guides.write_network(file, guides.REAL.network_tensors("Wan2.2-T2V-A14B"), "original")
    found = recognize(folder)
    assert found.recognition.variant == "wan2.2-t2v-a14b"
    assert found.components["high_noise"].files[0].parent.name == "transformer"
    assert found.components["low_noise"].files[0].parent.name == "transformer_2"


def test_no_configuration_file_overrides_what_the_tensors_say(
    guides: ModuleType, recognize: Callable[[Path], ModelMatch], tmp_path: Path
) -> None:
    folder = guides.without_network(tmp_path / "m", "Wan2.1-T2V-1.3B")
    single(guides, folder, "Wan2.1-T2V-1.3B")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 40}))
    with pytest.raises(Exception, match="config.json has num_layers = 40, but the checkpoint has 30 blocks"):
        recognize(folder)
