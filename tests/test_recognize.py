"""Which model a configuration speaks of: components that some models have and others do not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")

from lightx2v_core.config.load import load_config, parse_set
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.errors import LightX2VError
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.resolve import resolve

Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """``planned(data, *sets)``: the plan of a Wan2.2 folder with its real headers and no data."""
    path = Path(__file__).with_name("real_headers.py")
    spec = importlib.util.spec_from_file_location("real_headers", path)
    assert spec is not None
    assert spec.loader is not None
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    folder = tmp_path_factory.mktemp("models") / "Wan2.2-T2V-A14B"
    folder.mkdir()
    real.write_model(folder, folder.name)
    if real.has_no_holes(folder):
        pytest.skip("this file system has no sparse files")

    def plan(data: dict[str, Any], *sets: str) -> Plan:
        values = [parse_set(f"model_path={json.dumps(str(folder))}"), *map(parse_set, sets)]
        return resolve(load_config(data, values), load_plugins(only=["wan21", "wan22"], environ={})).plan

    return plan


def refusal(planned: Planned, data: dict[str, Any], *sets: str) -> str:
    with pytest.raises(LightX2VError) as caught:
        planned(data, *sets)
    return str(caught.value)


def test_flat_keys_of_a_component_that_the_model_does_not_have(planned: Planned) -> None:
    plan = planned({"clip_quantized": True, "clip_quant_scheme": "fp8", "clip_cpu_offload": False})
    (note,) = [text for text in plan.notes if "clip_quantized" in text]
    assert note.endswith(": ignored, wan2.2-a14b has no image encoder")
    assert "clip_quant_scheme in config" in note


def test_what_names_a_file_or_is_said_in_our_words_is_no_habit(planned: Planned) -> None:
    for data in (
        {"clip_original_ckpt": "clip.pth"},
        {"components": {"image_encoder": {"precision": "original"}}},
    ):
        assert "components.image_encoder: wan2.2-a14b has no such component" in refusal(planned, data)
    # the last word is our own
    assert "image_encoder" in refusal(
        planned,
        {"clip_quantized": True, "clip_quant_scheme": "fp8"},
        "components.image_encoder.precision=fp8",
    )


def test_components_of_experts_rule_out_models_of_one_network(planned: Planned) -> None:
    message = refusal(planned, {"high_noise_original_ckpt": "high.safetensors"})
    assert message.startswith("components.high_noise.path 'high.safetensors' does not exist")


def test_a_component_that_no_model_has(planned: Planned) -> None:
    message = refusal(planned, {"components": {"hihg_noise": {"path": "x"}}})
    assert "components.hihg_noise: wan2.2-a14b has no such component; did you mean 'high_noise'?" in message


def damaged(model: Path, file: str, how: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 100\n"
    data = (model / file).read_bytes()
    (model / file).write_bytes({"pointer": pointer, "cut": data[:4000], "empty": b""}[how])


@pytest.mark.parametrize("how", ["pointer", "cut", "empty"])
def test_a_damaged_file_that_nobody_asked_for_stops_nothing(how: str, tmp_path: Path) -> None:
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(tmp_path / "model")
    plugins = load_plugins()

    def planned(**values: Any) -> list[str]:
        plan = resolve(load_config({"model_path": str(tmp_path / "model"), **values}, []), plugins).plan
        return [item.name for item in plan.components]

    damaged(tmp_path / "model", "taew2_1.pth", how)
    assert planned() == ["dit", "text_encoder", "vae"]
    for asked in (
        {"model": {"use": "wan2.1", "options": {"wan2.1": {"tiny_vae": True}}}},
        {"components": {"tiny_vae": {"path": str(tmp_path / "model" / "taew2_1.pth")}}},
    ):
        with pytest.raises(LightX2VError, match=r"taew2_1\.pth"):
            planned(**asked)
    damaged(tmp_path / "model", "Wan2.1_VAE.pth", how)
    with pytest.raises(LightX2VError, match=r"Wan2\.1_VAE\.pth"):
        planned()
