"""The flat vocabulary of LightX2V: every key is supported, refused with a hint, or named in a note."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightx2v_core.config import jsonc
from lightx2v_core.config.lightx2v.groups import GROUPS
from lightx2v_core.config.lightx2v.keys import LEGACY, MM_TYPES
from lightx2v_core.config.lightx2v.schemes import wanted
from lightx2v_core.config.lightx2v.translate import FlatKey, translate
from lightx2v_core.config.load import LoadedConfig, load_config, parse_set
from lightx2v_core.errors import ConfigError
from lightx2v_core.testing.profiles import examples


def beside(name: str) -> Any:
    """Import a module of this folder, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


facts = beside("legacy_facts")
CORPUS = sorted((Path(__file__).parent / "legacy_corpus").glob("*.json"))
#: our own vocabulary has them under the same name
SHARED = {"model_path", "task", "prompt", "negative_prompt"}


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


# ---------------------------------------------------------------- every key


def test_the_table_has_every_key() -> None:
    assert [key for key in facts.frozen() if key.partition(".")[0] not in {*LEGACY, *SHARED}] == []
    assert set(LEGACY) <= set(facts.frozen())


def test_the_frozen_keys_are_those_of_the_notes() -> None:
    if not facts.FACTS.is_dir():
        pytest.skip("the notes about LightX2V are not next to the repository")
    assert facts.stated() - set(facts.frozen()) == set()
    assert len(facts.stated()) > 250


@pytest.mark.parametrize("name", LEGACY)
def test_what_becomes_of_a_key_is_one_thing(name: str) -> None:
    key = LEGACY[name]
    assert sum(map(bool, (key.to, key.same_as, key.refused, key.ignored))) == 1
    if key.same_as:
        assert LEGACY[key.same_as].to
    if key.to:
        assert key.help
        assert key.types


# ---------------------------------------------------------------- the corpus


def paths_in(value: Any, path: str = "") -> set[str]:
    """Dotted paths of all keys; items of lists have the path of the list."""
    if isinstance(value, list):
        return set().union(*(paths_in(item, path) for item in value))
    if not isinstance(value, dict):
        return set()
    own = {f"{path}.{key}".lstrip(".") for key in value}
    return own.union(*(paths_in(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()))


def test_the_corpus_has_every_key() -> None:
    assert len(CORPUS) >= 60
    found = set().union(*(paths_in(jsonc.read(path)) for path in CORPUS))
    assert set(facts.frozen()) - found == set()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").partition("\n")[0]
    if expected == "// accepted":
        loaded = load_config(path)
        again = load_config(json.loads(json.dumps(loaded.to_json())))
        assert again.config == loaded.config  # what `config show` prints is a configuration of our own
        return
    words = expected.removeprefix("// refused: ")
    message = refusal(path)
    assert words in message
    assert f"{path}, line " in message


# ---------------------------------------------------------------- nothing vanishes


def accounted(data: dict[str, Any]) -> set[str]:
    """Keys that were made something of, or are named in a warning or an error."""
    keys = {name: FlatKey(name=name, value=value, source="x", place="x") for name, value in data.items()}
    try:
        reading = translate(keys, GROUPS)
    except ConfigError as exc:
        return {word for line in str(exc).splitlines()[1:] for word in re.findall(r"\w+", line)}
    used = {key.name.partition(".")[0] for value in reading.translated for key in value.keys}
    named = {
        word
        for text in [*reading.warnings, *reading.notes]
        for word in re.findall(r"\w+", text.partition(":")[0])
    }
    return used | named


def says_nothing(name: str, value: Any) -> bool:
    """Values that leave everything as it is: off, not given, or the one thing that is done here."""
    key = LEGACY[name]
    return value in (None, False, "", "Default") or (bool(key.refused) and value in key.harmless)


VALUES: dict[str, list[Any]] = {}
for _path in CORPUS:
    for _name, _value in jsonc.read(_path).items():
        if _name in LEGACY and _value not in VALUES.setdefault(_name, []):
            VALUES[_name].append(_value)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_key_alone_does_not_vanish(name: str) -> None:
    for value in VALUES[name]:
        found = accounted({name: value})
        assert name in found or says_nothing(name, value), (name, value)


some_keys = st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=25).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in names})
)


#: two keys that say the same are both said to be where it comes from
TWICE = {
    "dit_quantized": True,
    "mm_config": {"mm_type": "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Sgl", "weight_auto_quant": True},
}


@given(data=some_keys)
@example(data=TWICE)
@settings(max_examples=examples(200), deadline=None)
def test_no_key_vanishes_among_others(data: dict[str, Any]) -> None:
    keys = {name: FlatKey(name=name, value=value, source="x", place="x") for name, value in data.items()}
    try:
        translate(keys, GROUPS)
    except ConfigError:
        return  # what stands beside a refused key is looked at when that is gone
    found = accounted(data)
    for name, value in data.items():
        assert name in found or says_nothing(name, value), (name, value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.dictionaries(st.sampled_from(sorted(LEGACY)), anything, max_size=4))
@settings(deadline=None)
def test_any_value_is_taken_or_refused(data: dict[str, Any]) -> None:
    try:
        loaded = load_config(data)
    except ConfigError:
        return
    load_config(loaded.to_json())


# ---------------------------------------------------------------- what keys mean

FP8_VLLM = {"use": ["fp8-vllm?", "fp8"], "options": {}}
MEANINGS: list[tuple[dict[str, Any], str, Any]] = [
    ({"infer_steps": 4}, "sampling.steps", 4),
    ({"num_inference_steps": 4}, "sampling.steps", 4),
    ({"target_height": 480, "target_width": 832}, "sampling.size", [832, 480]),
    ({"target_shape": [480, 832]}, "sampling.size", [832, 480]),
    ({"target_video_length": 81}, "sampling.frames", 81),
    ({"fps": 24}, "sampling.fps", 24.0),
    ({"sample_shift": 5}, "sampling.shift", 5.0),
    ({"sample_guide_scale": 6, "enable_cfg": True}, "sampling.guide_scale", [6.0]),
    ({"sample_guide_scale": [4.0, 3.0], "enable_cfg": True}, "sampling.guide_scale", [4.0, 3.0]),
    ({"sample_guide_scale": 6, "enable_cfg": False}, "sampling.guide_scale", [1.0]),
    ({"seed": 442}, "sampling.seed", 442),
    ({"denoising_step_list": [1000, 500]}, "scheduler.options.distill.denoising_steps", [1000, 500]),
    ({"scheduler_type": "WanStepDistillScheduler"}, "scheduler.use", ["distill"]),
    ({"boundary": 0.9}, "model.options.*.boundary", 0.9),
    ({"boundary_step_index": 2}, "model.options.*.boundary_step_index", 2),
    ({"boundary": 0.9, "boundary_step_index": 2}, "model.options.*", {"boundary": 0.9}),
    (
        {"boundary": 0.9, "boundary_step_index": 2, "denoising_step_list": [1000, 500]},
        "model.options.*", {"boundary_step_index": 2},
    ),
    ({"refert_num": 5}, "model.options.*.overlap_frames", 5),
    ({"changing_resolution": True}, "model.options.*", {"changing_resolution_rates": [0.75]}),
    ({"changing_resolution": True, "resolution_rate": [1.0, 0.75], "changing_resolution_steps": [10, 35]},
     "model.options.*", {"changing_resolution_rates": [1.0, 0.75], "changing_resolution_steps": [10, 35]}),
    ({"use_tiny_vae": True, "tiny_vae_path": "t.pth"}, "model.options.*.tiny_vae", True),
    ({"use_tae": True, "tae_path": "t.pth"}, "components.tiny_vae.path", "t.pth"),
    ({"need_scaled": True}, "model.options.*.tiny_vae_scaled", True),
    ({"use_tiling_vae": True}, "model.options.*", {"vae_tile": 256, "vae_tile_overlap": 64}),
    ({"vae_dtype": "torch.bfloat16"}, "model.options.*.vae_dtype", "bfloat16"),
    ({"vae_dtype": "BF16"}, "model.options.*.vae_dtype", "bfloat16"),
    ({"vae_weight_dtype": "FP32"}, "model.options.*.vae_dtype", "float32"),
    ({"vae_pth": "v.pth"}, "components.vae.path", "v.pth"),
    ({"dit_original_ckpt": "d"}, "components.dit.path", "d"),
    ({"dit_original_ckpt": "d"}, "components.dit.precision", "original"),
    ({"dit_quantized": True, "dit_quant_scheme": "fp8-vllm", "dit_quantized_ckpt": "q"}, "components.dit.path", "q"),
    ({"dit_quantized": True, "dit_quant_scheme": "fp8-vllm"}, "components.dit.precision", "fp8"),
    ({"dit_quantized": True, "dit_quant_scheme": "fp8-vllm"}, "components.dit.quantizer", FP8_VLLM),
    ({"mm_config": {"mm_type": "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Vllm"}}, "components.dit.quantizer",
     FP8_VLLM),
    ({"mm_config": {"mm_type": "W-int8-channel-sym-A-int8-channel-sym-dynamic-Vllm"}}, "components.dit.precision",
     "int8"),
    ({"mm_config": {"mm_type": "Default"}}, "components.dit.precision", "original"),
    ({"dit_quantized": True, "dit_quant_scheme": "int8-vllm", "weight_auto_quant": True},
     "components.dit.precision", "original"),
    ({"dit_quantized": True, "dit_quant_scheme": "int8-vllm", "high_noise_quantized_ckpt": "h"},
     "components.high_noise.path", "h"),
    ({"low_noise_original_ckpt": "l"}, "components.low_noise.path", "l"),
    ({"dit_distill_ckpt": "d"}, "components.dit", {"path": "d", "distilled": True}),
    ({"dit_distill_ckpt_high": "h"}, "components.dit.distilled", True),
    ({"t5_quantized": True, "t5_quant_scheme": "fp8"}, "components.text_encoder.precision", "fp8"),
    ({"t5_quantized": True, "t5_quant_scheme": "fp8"}, "components.text_encoder.quantizer.use", ["fp8"]),
    ({"clip_quantized": True, "clip_quant_scheme": "int8-vllm"}, "components.image_encoder.quantizer.use",
     ["int8-vllm?", "int8"]),
    ({"t5_tokenizer_path": "tok"}, "components.text_encoder.assets", {"tokenizer": "tok"}),
    ({"lora_dynamic_apply": True}, "lora_applier.use", ["dynamic"]),
    ({"cpu_offload": True, "offload_granularity": "phase"}, "offloader",
     {"use": ["cpu"], "options": {"cpu": {"granularity": "phase"}}}),
    ({"cpu_offload": True, "lazy_load": True, "num_disk_workers": 2}, "offloader",
     {"use": ["disk"], "options": {"disk": {"workers": 2}}}),
    ({"cpu_offload": True, "t5_cpu_offload": False}, "components.text_encoder.offloader.use", ["none"]),
    ({"t5_cpu_offload": True}, "components.text_encoder.offloader.use", ["cpu"]),
    ({"t5_lazy_load": True}, "components.text_encoder.offloader.use", ["disk"]),
    ({"cpu_offload": True, "t5_cpu_offload": True, "vae_cpu_offload": True}, "components", {}),
    ({"unload_modules": True}, "offloader.use", ["sequential"]),
    ({"self_attn_1_type": "flash_attn3", "cross_attn_1_type": "flash_attn3"}, "attention.use",
     ["flash-attn3?", "sdpa"]),
    ({"cross_attn_1_type": "torch_sdpa"}, "attention.use", ["sdpa"]),
    ({"model_cls": "wan2.2_moe"}, "model.use", ["wan2.2_moe"]),
    ({"src_ref_images": "a.png, b.png"}, "inputs.ref_images", ["a.png", "b.png"]),
    ({"save_result_path": "x.mp4", "image_path": "i.png"}, "inputs.image", "i.png"),
    # disabled features set nothing
    ({"use_tae": False, "use_tiling_vae": False, "cpu_offload": False, "lora_dynamic_apply": False}, "model.options",
     {}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "path", "value"), MEANINGS, ids=repr)
def test_meaning(data: dict[str, Any], path: str, value: Any) -> None:
    found = plain(load(data), *path.split("."))
    if isinstance(value, dict) and isinstance(found, dict):
        assert {key: found.get(key) for key in value} == value
        assert value or not found
    else:
        assert found == value


def test_loras() -> None:
    given = {"path": "a", "strength": 0.5, "alpha": 8, "name": "low_noise_model"}
    (lora,) = load({"lora_configs": [given]}).config.loras
    assert (lora.path, lora.strength, lora.alpha, lora.name) == ("a", 0.5, 8.0, "low_noise_model")
    assert load({"lora_configs": [{"path": "a", "alpha": None}]}).config.loras[0].alpha is None


@pytest.mark.parametrize("name", MM_TYPES)
def test_long_names_of_schemes(name: str) -> None:
    scheme = MM_TYPES[name]
    section = plain(load({"mm_config": {"mm_type": name}}), "components", "dit", "quantizer")
    assert (section or {}).get("use") == (wanted(scheme) if scheme else None)


@pytest.mark.parametrize(
    "kernel", ["-Vllm", "-Sgl", "-Q8F", "-Triton", "-Torchao", "-npu", "-Q8F-ActVllm", "-Unheard", ""]
)
@pytest.mark.parametrize("format", ["fp8", "int8"])
def test_a_long_name_is_a_format_and_a_wish_for_a_kernel(format: str, kernel: str) -> None:
    loaded = load(
        {"mm_config": {"mm_type": f"W-{format}-channel-sym-A-{format}-channel-sym-dynamic{kernel}"}}
    )
    assert plain(loaded, "components", "dit", "precision") == format
    wish, otherwise = plain(loaded, "components", "dit", "quantizer", "use")
    assert wish.endswith("?")
    assert otherwise == format


@pytest.mark.parametrize(
    "name", ["W-fp8-channel-sym-A-int8-channel-sym-dynamic-Vllm", "W-fp8-tensor-sym-A-fp8-tensor-sym-static"]
)
def test_other_long_names_are_refused(name: str) -> None:
    assert "mm_config.mm_type: unsupported value" in refusal({"mm_config": {"mm_type": name}})


@pytest.mark.parametrize(
    ("name", "use"),
    [("nvfp4", ["nvfp4"]), ("mxfp8", ["mxfp8"]), ("int4-g128-marlin", ["int4-g128-marlin"]),
     ("fp8-b128-deepgemm", ["fp8-b128-deepgemm?", "dequant"]), ("gguf-Q4_0", ["gguf-Q4_0"]), ("fp8", ["fp8"]),
     ("int8-npu", ["int8-npu?", "int8"]), ("fp8-triton", ["fp8-triton?", "fp8"])],
)  # fmt: skip
def test_what_nothing_else_runs_is_no_wish(name: str, use: list[str]) -> None:
    loaded = load({"dit_quantized": True, "dit_quant_scheme": name})
    assert plain(loaded, "components", "dit", "quantizer", "use") == use
