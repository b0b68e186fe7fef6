"""Options over a file: what the file says is still there, or an error or a warning names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.cli.options import RUN_OPTIONS
from lightx2v_core.config import jsonc
from lightx2v_core.config.declared import SECTIONS
from lightx2v_core.config.keywords import request_config
from lightx2v_core.config.layers import Value
from lightx2v_core.config.lightx2v.keys import LEGACY
from lightx2v_core.config.load import LoadedConfig, load_config, parse_set
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import LightX2VError
from lightx2v_core.plan.leftovers import without_leftovers
from lightx2v_core.plan.selection import by_true_name
from lightx2v_core.testing.profiles import examples

REGISTRY = Registry(load_plugins(disable=[]))
FILE = "the file"

#: an option of ``run`` -> values that it may have
TEXTS: dict[str, tuple[str, ...]] = {
    "model_path": ("m",), "model": ("wan2.1", "wan2.1_distill", "wan2.2_moe", "wan2.2_animate"), "task": ("t2v",),
    "prompt": ("a fox",), "negative_prompt": ("",), "image": ("i.png",), "last_image": ("l.png",),
    "src_video": ("v.mp4",), "src_mask": ("m.mp4",), "ref_image": ("r.png",), "pose_video": ("p.mp4",),
    "face_video": ("f.mp4",), "background_video": ("b.mp4",), "mask_video": ("k.mp4",), "size": ("80x48",),
    "frames": ("9",), "fps": ("8",), "steps": ("7",), "guide_scale": ("4,3",), "shift": ("2",),
    "scheduler": ("euler", "distill", "unipc,euler"), "seed": ("3",), "dtype": ("float32",), "device": ("cpu",),
    "attention": ("sdpa", "flash-attn2?,sdpa"), "quantizer": ("dequant", "none", "fp8-vllm?"),
    "offloader": ("none", "cpu", "disk", "auto"), "vram_limit": ("3GB",), "ram_limit": ("3GB",),
    "lora": ("x.safetensors",), "lora_applier": ("dynamic", "merge"), "strict_lora": ("",),
    "batched_guidance": ("",), "output": ("o.mp4",), "no_record": ("",), "no_overwrite": ("",),
}  # fmt: skip

#: flat keys, with values from the files of LightX2V
FLAT: dict[str, list[Any]] = {}
for _path in sorted(Path(__file__).with_name("legacy_corpus").glob("*.json")):
    for _name, _value in jsonc.read(_path).items():
        if _name in LEGACY and _value is not None and _value not in FLAT.setdefault(_name, []):
            FLAT[_name].append(_value)

#: our own keys
OWN: dict[str, list[Any]] = {
    "model_path": ["n"],
    "model": [
        "wan2.2_moe",
        {"options": {"*": {"boundary": 0.5, "vae_tile": 32}}},
        {"use": "wan2.1", "options": {"wan2.1": {"vae_tile": 64}}},
    ],
    "task": ["i2v"], "prompt": ["a dog"], "negative_prompt": ["rain"], "dtype": ["bfloat16"], "device": ["auto"],
    "attention": ["sdpa", {"use": "auto", "options": {"sdpa": {}}}],
    "quantizer": ["dequant", {"use": "dequant", "options": {"dequant": {"keep": ["a"]}, "*": {"only": ["b"]}}}],
    "offloader": [
        {"use": "cpu", "options": {"cpu": {"granularity": "block"}}},
        {"use": "disk", "options": {"*": {"granularity": "phase"}, "disk": {"workers": 2}}},
    ],
    "memory": [{"vram_limit": "2GB", "disk_speed": "1GB"}],
    "lora_applier": ["dynamic", {"use": "merge", "options": {"merge": {}}}],
    "scheduler": [{"use": "distill", "options": {"distill": {"denoising_steps": [1000, 500]}}}, "unipc",
                  {"use": ["euler"], "options": {"*": {"grid": "unipc"}}}],
    "components": [
        {"dit": {"precision": "fp8", "quantizer": {"use": "dequant", "options": {"dequant": {"keep": ["c"]}}}},
         "vae": {"path": "v.pth", "offloader": "none"}},
        {"text_encoder": {"offloader": "disk", "assets": {"tokenizer": "t"}}},
    ],
    "sampling": [{"steps": 5, "seed": 1, "batched_guidance": True}, {"size": "64x32", "shift": 3}],
    "inputs": [{"image": "j.png", "src_video": "w.mp4"}],
    "loras": [["y.safetensors", {"path": "z.safetensors", "strength": 0.5}]],
    "strict_lora": [True], "output": [{"path": "q.mp4", "crf": 20}],
}  # fmt: skip


def of_option(parameter: str, text: str) -> Value:
    option = next(option for option in RUN_OPTIONS if option.parameter == parameter)
    read: Any = option.sets if option.flag else option.read(text)
    if option.multiple and not isinstance(read, list):
        read = [read]
    return Value(path=option.key, value=read, origin=option.names[0])


def settled(loaded: LoadedConfig) -> LoadedConfig:
    return without_leftovers(by_true_name(loaded, REGISTRY)[0], REGISTRY)


def values(loaded: LoadedConfig) -> dict[tuple[str, ...], Any]:
    """Every value that somebody set, by its path."""
    found: dict[tuple[str, ...], Any] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), json.loads(json.dumps(loaded.to_json())))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [((*path, key), inner) for key, inner in value.items()]
        elif loaded.origin(*path) != "default":
            found[path] = value
    return found


def keys_set_by(item: Value) -> list[tuple[str, ...]]:
    """The keys that a value is for: of a choice its ``use``, and each option that it has."""
    if item.path[0] not in SECTIONS:
        return [item.path]
    if not isinstance(item.value, dict):
        return [(*item.path, "use")]
    options = item.value.get("options", {})
    return [(*item.path, "use")] + [
        (*item.path, "options", name, key) for name in options for key in options[name]
    ]


def key_names(origin: str) -> list[str]:
    """The keys that a value comes from: flat ones as they are called."""
    return [name.strip() for name in origin.partition(" in ")[0].split(",")] if " in " in origin else []


def check_both(data: dict[str, Any], *over: Value) -> None:
    """Nothing of ``data`` or ``over`` goes without a word when they are given on top of each other."""
    try:
        alone = settled(load_config(data))
    except LightX2VError:
        return  # refused before anything lies over it
    try:
        both = settled(load_config(data, over))
    except LightX2VError as exc:
        said = [str(exc)]
        assert any(item.origin in said[0] for item in over) or any(key in said[0] for key in data), said
        return
    taken = {path for item in over for path in keys_set_by(item)}
    before, after, warned = values(alone), values(both), "\n".join(both.warnings)
    for path, value in before.items():
        names = [".".join(path), *key_names(alone.origin(*path))]
        if path in taken or any(path[: len(other)] == other for other in taken):
            continue  # the very key that was replaced
        assert after.get(path, None) == value or any(name in warned for name in names), (path, value, warned)
    for item in over:
        assert item.origin in both.origins.values() or item.origin in warned, (item, both.origins)


def test_every_option_is_tried() -> None:
    assert set(TEXTS) == {option.parameter for option in RUN_OPTIONS}


CHOICES = [(name, text) for name, texts in TEXTS.items() for text in texts]
KEYS = [(name, value) for table in (FLAT, OWN) for name, found in table.items() for value in found]


@pytest.mark.parametrize(("option", "text"), CHOICES, ids=lambda value: str(value))
def test_an_option_over_each_key(option: str, text: str) -> None:
    for name, value in KEYS:
        check_both({name: value}, of_option(option, text))


several_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6, unique_by=lambda item: item[0])
several_options = st.lists(st.sampled_from(CHOICES), min_size=1, max_size=3, unique_by=lambda item: item[0])


@given(keys=several_keys, options=several_options)
@settings(max_examples=examples(300), deadline=None)
def test_several_options_over_several_keys(
    keys: list[tuple[str, Any]], options: list[tuple[str, str]]
) -> None:
    check_both(dict(keys), *(of_option(name, text) for name, text in options))


@given(keys=several_keys, other=st.sampled_from(KEYS))
@settings(max_examples=examples(200), deadline=None)
def test_a_key_of_set_over_several_keys(keys: list[tuple[str, Any]], other: tuple[str, Any]) -> None:
    name, value = other
    if name in LEGACY or not isinstance(value, str):
        value = json.dumps(value)
    if name not in LEGACY:
        check_both(dict(keys), parse_set(f"{name}={value}"))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("model", ["wan2.2_moe", "wan2.2_moe_distill"])
def test_the_way_every_script_of_the_original_calls_it(own: bool, model: str) -> None:
    """``--model_cls X --config_json F``."""
    flat = {
        "boundary_step_index": 1,
        "changing_resolution": True,
        "vae_dtype": "FP32",
        "use_tiling_vae": True,
    }
    data = {"model": {"options": {"*": {"boundary_step_index": 1, "vae_tile": 256}}}} if own else flat
    loaded = load_config(data, [of_option("model", model)])
    assert loaded.config.model.use == (model,)
    assert loaded.config.model.options["*"]["boundary_step_index"] == 1
    assert loaded.config.model.options["*"]["vae_tile"] == 256
    assert loaded.warnings == ()


def test_a_model_and_its_options_in_one_file_in_both_vocabularies() -> None:
    loaded = load_config({"model_cls": "wan2.1", "model": {"options": {"*": {"vae_tile": 64}}}})
    assert loaded.config.model.use == ("wan2.1",)
    assert loaded.config.model.options == {"*": {"vae_tile": 64}}


def test_steps_of_a_scheduler_that_is_not_used() -> None:
    loaded = settled(load_config({"denoising_step_list": [1000, 500]}, [of_option("scheduler", "euler")]))
    assert loaded.config.scheduler is not None
    assert loaded.config.scheduler.use == ("euler",)
    assert loaded.config.scheduler.options == {}
    (warning,) = loaded.warnings
    for word in ("denoising_step_list in config", "scheduler.options.distill.denoising_steps", "--scheduler"):
        assert word in warning


def test_steps_of_a_scheduler_that_is_named_again() -> None:
    loaded = settled(load_config({"denoising_step_list": [1000, 500]}, [of_option("scheduler", "distill")]))
    assert loaded.config.scheduler is not None
    assert loaded.config.scheduler.options == {"distill": {"denoising_steps": [1000, 500]}}
    assert loaded.warnings == ()


def test_another_scheduler_for_one_request() -> None:
    base = settled(
        load_config({"scheduler": {"use": "distill", "options": {"distill": {"denoising_steps": [9]}}}})
    )
    loaded, _ = request_config(base, {"scheduler": "euler"})
    (warning,) = settled(loaded).warnings
    assert (
        "scheduler.options.distill.denoising_steps is ignored, since scheduler is euler (scheduler=)"
        in warning
    )
    assert base.warnings == ()


def test_options_above_the_choice_are_refused_as_ever() -> None:
    loaded = load_config(None, [of_option("scheduler", "euler"), parse_set("scheduler.options.distill={}")])
    assert loaded.beneath == frozenset()


def test_a_choice_for_all_leaves_that_of_a_component() -> None:
    loaded = load_config({"t5_cpu_offload": True}, [of_option("offloader", "disk")])
    assert loaded.config.components["text_encoder"].offloader is not None
    (warning,) = loaded.warnings
    assert (
        "--offloader: no effect on components.text_encoder.offloader, which is cpu (t5_cpu_offload in"
        in warning
    )
    loaded = load_config({"cpu_offload": True, "t5_cpu_offload": True}, [of_option("offloader", "none")])
    (warning,) = loaded.warnings
    assert "t5_cpu_offload in config: no effect, since offloader is none (--offloader)" in warning


def test_what_is_set_anew_is_named() -> None:
    loaded = load_config({"sampling": {"steps": 4, "seed": 9}}, [parse_set('sampling={"seed": 3}')])
    (warning,) = loaded.warnings
    assert "sampling.steps (config): not used, since --set sampling replaces sampling" in warning
    assert "seed" not in warning
