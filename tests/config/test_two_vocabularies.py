"""Both vocabularies in one configuration: precedence, and refusals with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig, load_config, parse_set
from lightx2v_core.errors import ConfigError


def load(data: dict[str, Any], *sets: str) -> LoadedConfig:
    return load_config(data, [parse_set(text) for text in sets])


def refusal(data: Any, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(data, [parse_set(text) for text in sets])
    return str(caught.value)


def plain(loaded: LoadedConfig, *path: str) -> Any:
    """A value of the translated configuration."""
    value: Any = json.loads(json.dumps(loaded.to_json()))
    for key in path:
        value = value[key]
    return value


def test_what_is_off_lies_over_what_is_on() -> None:
    data = {"model": {"options": {"*": {"tiny_vae": True}}}, "offloader": "cpu"}
    loaded = load(data, "use_tae=false", "cpu_offload=false")
    assert plain(loaded, "model", "options", "*", "tiny_vae") is False
    assert loaded.config.offloader.use == ("none",)
    assert loaded.origin("offloader", "use") == "--set cpu_offload"


def test_later_layers_win_whatever_the_vocabulary() -> None:
    data = {"infer_steps": 40, "target_height": 480, "target_width": 832, "sampling": {"shift": 3}}
    loaded = load(data, "sampling.steps=9", "sample_shift=8", "target_height=720")
    assert loaded.config.sampling.steps == 9
    assert loaded.config.sampling.shift == 8
    assert loaded.config.sampling.size == (832, 720)
    assert load(data, "sampling.steps=9", "infer_steps=7").config.sampling.steps == 7
    assert load(data, "infer_steps=7", "sampling.steps=9").config.sampling.steps == 9
    assert loaded.origin("sampling", "size") == "target_width in config and --set target_height"
    assert loaded.origin("sampling", "shift") == "--set sample_shift"
    scheme = {"dit_quantized": True, "dit_quant_scheme": "fp8-vllm"}
    loaded = load(scheme, "dit_quant_scheme=int8-vllm")
    assert plain(loaded, "components", "dit", "precision") == "int8"
    assert plain(load(scheme, "dit_quantized=false"), "components", "dit", "precision") == "original"


def test_keys_inside_a_flat_key() -> None:
    data = {"mm_config": {"mm_type": "Default"}}
    name = "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Sgl"
    loaded = load(data, f"mm_config.mm_type={name}")
    assert plain(loaded, "components", "dit", "quantizer", "use") == ["fp8-sgl?", "fp8"]
    assert "parallel" in refusal({}, "parallel.seq_p_size=4")
    assert "parallel is False, not an object" in refusal({"parallel": False}, "parallel.seq_p_size=4")


def test_the_same_twice_is_fine() -> None:
    data = {"infer_steps": 4, "sampling": {"steps": 4, "size": "832x480"}, "target_height": 480, "target_width": 832,
            "vae_pth": "v", "vae_path": "v", "offloader": "cpu", "cpu_offload": True,
            "dit_quantized": True, "dit_quant_scheme": "fp8-vllm",
            "mm_config": {"mm_type": "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Vllm"}}  # fmt: skip
    assert load(data).config.sampling.steps == 4


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"infer_steps": 4, "sampling": {"steps": 5}}, ("infer_steps", "sampling.steps", "is 4", "is 5")),
        ({"vae_pth": "a", "vae_path": "b"}, ("vae_pth", "vae_path")),
        ({"vae_pth": "a", "components": {"vae": {"path": "b"}}}, ("vae_pth", "components.vae.path")),
        ({"cpu_offload": True, "offloader": "none"}, ("cpu_offload", "offloader.use")),
        ({"cpu_offload": False, "offloader": "cpu"}, ("cpu_offload", "offloader.use")),
        ({"use_tae": False, "model": {"options": {"*": {"tiny_vae": True}}}}, ("use_tae", "model.options.*.tiny_vae")),
        ({"self_attn_1_type": "torch_sdpa", "attention": "acme"}, ("self_attn_1_type", "attention.use")),
        ({"lora_configs": [{"path": "a"}], "loras": ["b"]}, ("lora_configs", "loras")),
        ({"dit_quantized": False, "mm_config": {"mm_type": "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Sgl"}},
         ("dit_quantized", "mm_config.mm_type")),
        ({"dit_original_ckpt": "a", "dit_distill_ckpt": "b"}, ("dit_original_ckpt", "dit_distill_ckpt")),
        ({"target_shape": [1, 2], "target_height": 2, "target_width": 2}, ("target_shape", "target_width")),
    ],
    ids=repr,
)  # fmt: skip
def test_contradictions_name_both_keys(data: dict[str, Any], parts: tuple[str, ...]) -> None:
    message = refusal(data)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"infer_step": 4}, ("unknown key 'infer_step'", "did you mean 'infer_steps'?")),
        ({"dit_quantised": True}, ("did you mean 'dit_quantized'?",)),
        ({"atention": "sdpa"}, ("did you mean 'attention'?",)),
        ({"infer_steps": "4"}, ("infer_steps", "expected an integer")),
        ({"sample_guide_scale": True}, ("sample_guide_scale", "expected a number or a list")),
        ({"vae_dtype": "int8"}, ("vae_dtype", "'int8' is not a supported dtype")),
        ({"offload_granularity": "blok"}, ("did you mean 'block'?",)),
        ({"self_attn_1_type": "flash_atn3"}, ("did you mean 'flash_attn3'?",)),
        ({"scheduler_type": "X"}, ("scheduler_type", "unipc")),
        ({"mm_config": {"mm_typ": "Default"}}, ("did you mean 'mm_type'?",)),
        ({"mm_config": {"mm_type": 5}}, ("mm_config.mm_type",)),
        ({"use_lightvae": True}, ("vae_path",)),
        ({"weight_auto_quant": True}, ("dit_quant_scheme",)),
        ({"lora_configs": [{"path": "x", "weight": 1}]}, ("unknown key 'weight'", "lora_configs")),
        ({"infer_steps": 0}, ("'steps' must be", "infer_steps")),
    ],
    ids=repr,
)
def test_refusals(data: dict[str, Any], parts: tuple[str, ...]) -> None:
    message = refusal(data)
    for part in parts:
        assert part in message


def test_all_refusals_in_one_message() -> None:
    message = refusal({"parallel": True, "feature_caching": "Tea", "cpu_offload": 1})
    for name in ("parallel", "feature_caching", "cpu_offload"):
        assert name in message


def test_lines_of_wrong_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{ // a comment\n  "infer_stepz": 4,\n  "sampling": {\n    "sped": 1,\n    "seed": "x"},\n}'
    )
    message = refusal(path)
    assert f"unknown key 'infer_stepz'; did you mean 'infer_steps'? @ $ ({path}, line 2, column 3)" in message
    assert f"unknown key 'sped'; did you mean 'seed'? @ $.sampling ({path}, line 4, column 5)" in message
    assert f"$.sampling.seed ({path}, line 5, column 5)" in message
    path.write_text('{"sampling": {\n "shift": 0}}')
    assert (
        f"'shift' must be above 0 and at most 10000, got 0.0 @ $.sampling ({path}, line 2, column 2)"
        in refusal(path)
    )
    path.write_text('{"infer_steps": 9999,\n "vae_pth": 5}')
    assert f"{path}, line 2, column 2: vae_pth: expected a path, got 5" in refusal(path)
    path.write_text('{"infer_steps": 9999}')
    assert f"$.sampling (infer_steps in {path})" in refusal(path)
    path.write_text('{"infer_steps": 9,\n "sampling": {"steps": 8}}')
    message = refusal(path)
    assert f"infer_steps ({path}, line 1, column 2) is 9" in message
    assert f"sampling.steps ({path}, line 2, column 15) is 8" in message


def test_warnings_name_key_and_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"rope_type": "x", "rms_norm_type": "y", "boundary": 0.9, "boundary_step_index": 2}')
    loaded = load_config(path, [Value(path=("sampling", "steps"), value=3, origin="--steps")])
    assert [text for text in loaded.notes if text.startswith(f"rope_type, rms_norm_type ({path}): ignored")]
    assert [text for text in loaded.notes if text.startswith(f"boundary_step_index in {path}: not used")]
    assert load_config({"sampling": {"steps": 3}}).warnings == ()
