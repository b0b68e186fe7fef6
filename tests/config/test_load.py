"""Configuration: strict keys and values, ``--set``, precedence and the origin of every value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import default_config, load_config, parse_set
from lightx2v_core.config.model import RunConfig
from lightx2v_core.config.structure import structure
from lightx2v_core.config.texts import parse_size
from lightx2v_core.errors import ConfigError


def refusal(data: Any, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(data, [parse_set(text) for text in sets])
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"sampling": {"step": 5}}, ("unknown key 'step'", "did you mean 'steps'?", "sampling")),
        ({"promt": "x"}, ("unknown key 'promt'", "did you mean 'prompt'?")),
        ({"output": {"zzz": 1}}, ("unknown key 'zzz'",)),
        ({"attention": {"use": "sdpa", "option": {}}}, ("unknown key 'option'", "'options'", "attention")),
        ({"components": {"dit": {"file": "x"}}}, ("unknown key 'file'", "components['dit']")),
        ({"loras": [{"path": "x", "weight": 1}]}, ("unknown key 'weight'", "loras[0]")),
        ({"sampling": {"steps": "5"}}, ("expected an integer", "a string '5'", "sampling.steps")),
        ({"sampling": {"steps": 5.0}}, ("expected an integer", "sampling.steps")),
        ({"sampling": {"steps": True}}, ("expected an integer", "true or false")),
        ({"sampling": {"steps": 0}}, ("steps\'", "$.sampling", "1")),
        ({"sampling": {"steps": 10**9}}, ("steps\'", "$.sampling", "1000")),
        ({"sampling": {"seed": -1}}, ("seed\'", "$.sampling", "0")),
        ({"sampling": {"seed": 2**63}}, ("seed\'", "$.sampling",)),
        ({"sampling": {"fps": 0}}, ("fps\'", "$.sampling",)),
        ({"sampling": {"fps": "16"}}, ("sampling.fps", "expected a number")),
        ({"sampling": {"shift": -1}}, ("shift\'", "$.sampling",)),
        ({"sampling": {"shift": 10**400}}, ("sampling.shift",)),
        ({"sampling": {"shift": [5, 8]}}, ("expected a number, got a list", "sampling.shift")),
        ({"sampling": {"frames": 0}}, ("frames\'", "$.sampling",)),
        ({"sampling": {"size": [832]}}, ("sampling.size", "expected 2 values, got 1")),
        ({"sampling": {"size": [832, 480, 1]}}, ("sampling.size", "expected 2 values, got 3")),
        ({"sampling": {"size": ["832", "480"]}}, ("sampling.size", "expected an integer")),
        ({"sampling": {"size": [832, -480]}}, ("size\'", "$.sampling",)),
        ({"sampling": {"size": "832"}}, ("size '832'", "WIDTHxHEIGHT")),
        ({"sampling": {"size": "832x480x3"}}, ("WIDTHxHEIGHT",)),
        ({"sampling": {"size": 832}}, ("sampling.size", "expected a list")),
        ({"sampling": {"guide_scale": [1, 2, 3]}}, ("guide_scale\'", "$.sampling",)),
        ({"sampling": {"guide_scale": []}}, ("guide_scale\'", "$.sampling",)),
        ({"sampling": {"guide_scale": -1}}, ("guide_scale\'", "$.sampling",)),
        ({"sampling": {"guide_scale": "5"}}, ("sampling.guide_scale", "expected a list")),
        ({"sampling": []}, ("sampling", "expected an object, got a list")),
        ({"sampling": None}, ("sampling", "expected an object, got null")),
        ({"prompt": 5}, ("prompt", "expected a string, got an integer 5")),
        ({"prompt": ["a"]}, ("prompt", "expected a string")),
        ({"prompt": "\ud800"}, ("prompt", "not valid text")),
        ({"model_path": "a\0b"}, ("model_path", "not valid text")),
        ({"dtype": "bfloat"}, ("dtype", "'bfloat' is not one of", "did you mean 'bfloat16'?")),
        ({"dtype": 16}, ("dtype", "16 is not one of")),
        ({"dtype": ["bfloat16"]}, ("dtype", "is not one of")),
        ({"attention": {"use": []}}, ("attention",)),
        ({"attention": {"use": [5]}}, ("attention", "expected a string")),
        ({"attention": 5}, ("attention", "expected an object, got an integer")),
        ({"scheduler": {"options": {}}}, ("scheduler", "'use'", "required")),
        ({"output": {"record": "no"}}, ("output.record", "true or false")),
        ({"output": {"crf": 52}}, ("'crf'", "$.output", "51")),
        ({"loras": {"path": "x"}}, ("loras", "expected a list")),
        ({"loras": [5]}, ("loras[0]", "expected an object")),
        ({"loras": [{"strength": 1}]}, ("loras[0]", "'path' is required")),
        ({"loras": "x.safetensors"}, ("loras", "expected a list")),
        ({"inputs": {"image": 3}}, ("inputs.image", "expected a string")),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_refused(data: Any, parts: tuple[str, ...]) -> None:
    message = refusal(data)
    for part in parts:
        assert part in message
    assert "validator" not in message
    assert "Attribute(" not in message


def test_every_mistake_is_in_one_message() -> None:
    message = refusal({"promt": 1, "sampling": {"step": 1, "seed": "x", "frames": 0}, "dtype": "x"})
    for word in ("'promt'", "'step'", "sampling.seed", "dtype"):
        assert word in message


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"sampling": {"steps": 0}}')
    assert str(path) in refusal(path)


def test_short_spellings() -> None:
    loaded = load_config(
        {
            "attention": "sdpa",
            "scheduler": ["unipc", "euler"],
            "model": {"options": {"wan2.1": {"vae_tile": 0}}},
            "sampling": {"size": "832x480", "guide_scale": 5},
            "loras": ["a.safetensors", {"path": "b.safetensors", "strength": 0.5}],
            "components": {"dit": {"quantizer": "fp8"}},
        }
    )
    config = loaded.config
    assert config.attention.use == ("sdpa",)
    assert config.scheduler is not None
    assert config.scheduler.use == ("unipc", "euler")
    assert config.model.use == ("auto",)
    assert config.sampling.size == (832, 480)
    assert config.sampling.guide_scale == (5,)
    assert [lora.strength for lora in config.loras] == [1.0, 0.5]
    assert config.components["dit"].quantizer is not None
    assert config.components["dit"].quantizer.use == ("fp8",)


def test_plain_data_comes_back_as_the_same_configuration() -> None:
    data = {"sampling": {"size": "64x32", "steps": 3}, "attention": ["a", "b"], "loras": ["x"], "prompt": "ä"}
    loaded = load_config(data)
    again = load_config(json.loads(json.dumps(loaded.to_json())))
    assert again.config == loaded.config
    assert load_config(default_config()).config == RunConfig() == load_config().config


def test_the_given_data_stays_as_it_is() -> None:
    data = {"sampling": {"steps": 3}, "attention": "sdpa"}
    load_config(data, [parse_set("sampling.steps=9"), parse_set("attention.options.sdpa={}")])
    assert data == {"sampling": {"steps": 3}, "attention": "sdpa"}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("sampling.steps=20", ("sampling", "steps"), 20),
        (" sampling . steps = 20", ("sampling", "steps"), 20),
        ("prompt=a red fox", ("prompt",), "a red fox"),
        ("prompt=a=b", ("prompt",), "a=b"),
        ("prompt=", ("prompt",), ""),
        ('prompt="5"', ("prompt",), "5"),
        ("prompt=null", ("prompt",), None),
        ("output.record=false", ("output", "record"), False),
        ("sampling.guide_scale=[4, 3,]", ("sampling", "guide_scale"), [4, 3]),
        ('model.options."wan2.1".vae_tile=256', ("model", "options", "wan2.1", "vae_tile"), 256),
        ('"a=b".c=1', ("a=b", "c"), 1),
        ('"a.b"=1', ("a.b",), 1),
        ("output.path=/a//b.mp4", ("output", "path"), "/a//b.mp4"),
        ("output.path=C:\\x", ("output", "path"), "C:\\x"),
        ("sampling.shift=NaN", ("sampling", "shift"), "NaN"),
    ],
)
def test_set(text: str, path: tuple[str, ...], value: Any) -> None:
    parsed = parse_set(text)
    assert parsed.path == path
    assert parsed.value == value
    assert parsed.origin.startswith("--set ")


@pytest.mark.parametrize(
    "text",
    ["", "sampling.steps", "=5", " =5", ".=1", "..=1", "a..b=1", ".a=1", "a.=1", '"a=1', 'a"b=1', '"a"b=1', 'a"b"=1',
     '""=1', "a. .b=1", '"a""b"=1'],
    ids=repr,
)  # fmt: skip
def test_set_without_a_key(text: str) -> None:
    with pytest.raises(ConfigError, match="--set .*expected dotted.key=value"):
        parse_set(text)


@pytest.mark.parametrize("text", ["a={", 'a={"b": }', "a=[1", 'a="x'])
def test_set_with_broken_json(text: str) -> None:
    with pytest.raises(ConfigError, match="--set a: line 1, column"):
        parse_set(text)


@given(text=st.text(max_size=30) | st.text(alphabet='ab."=[]{}1, ', max_size=15))
def test_set_of_any_text(text: str) -> None:
    try:
        parsed = parse_set(text)
    except ConfigError:
        return
    assert parsed.path
    assert all(part and isinstance(part, str) for part in parsed.path)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["sampling=5", "sampling.steps=3"], "sampling is 5, not an object"),
        (["prompt=x", "prompt.y=3"], "prompt is 'x', not an object"),
        (["sampling.step=3"], "did you mean 'steps'?"),
        (["loras.0.path=x"], "expected a list"),
        (["sampling.steps=abc"], "expected an integer, got a string 'abc'"),
        (["nonsense=1"], "unknown key 'nonsense'"),
    ],
)
def test_set_of_what_is_not_there(sets: list[str], words: str) -> None:
    assert words in refusal(None, *sets)


def test_precedence_and_origins(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"$schema": "x", "sampling": {"steps": 1, "seed": 1, "frames": 5}, "attention": "sdpa"}')
    loaded = load_config(
        path,
        [
            Value(path=("sampling", "steps"), value=2, origin="--steps"),
            Value(path=("sampling", "seed"), value=2, origin="--seed"),
            parse_set("sampling.steps=3"),
        ],
    )
    assert (loaded.config.sampling.steps, loaded.config.sampling.seed, loaded.config.sampling.frames) == (
        3,
        2,
        5,
    )
    assert loaded.origin("sampling", "steps") == "--set sampling.steps"
    assert loaded.origin("sampling", "seed") == "--seed"
    assert loaded.origin("sampling", "frames") == str(path)
    assert loaded.origin("sampling", "shift") == "default"
    assert loaded.origin("attention", "use") == str(path)
    assert loaded.origin("prompt") == "default"


def test_options_that_are_added_to_a_name() -> None:
    loaded = load_config({"scheduler": "euler"}, [parse_set('scheduler.options.euler={"grid": "unipc"}')])
    assert loaded.config.scheduler is not None
    assert loaded.config.scheduler.use == ("euler",)
    assert loaded.config.scheduler.options == {"euler": {"grid": "unipc"}}


def test_a_section_that_is_set_anew_has_one_origin() -> None:
    loaded = load_config({"sampling": {"steps": 4, "seed": 9}}, [parse_set('sampling={"seed": 3}')])
    assert loaded.config.sampling.steps is None
    assert loaded.origin("sampling", "seed") == "--set sampling"
    assert loaded.origin("sampling", "steps") == "default"


@pytest.mark.parametrize("text", ["832x480", " 832 X 480 ", "832*480", "832×480"])
def test_sizes(text: str) -> None:
    assert parse_size(text) == [832, 480]


@pytest.mark.parametrize(
    "text", ["", "x", "832", "832x", "x480", "-832x480", "8.5x4", "832x480p", "9" * 5000 + "x1"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="expected WIDTHxHEIGHT") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 300


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["sampling", "prompt", "attention", "model", "loras", "components", "output", "dtype", "inputs"]
)
inner_keys = st.sampled_from(
    ["steps", "size", "seed", "use", "options", "path", "dit", "record", "guide_scale", "image", "ref_images"]
)


@given(
    data=st.dictionaries(
        keys, plain_values | st.dictionaries(inner_keys, plain_values, max_size=3), max_size=4
    )
)
def test_any_data_is_a_configuration_or_a_message(data: dict[str, Any]) -> None:
    try:
        loaded = load_config(data)
    except ConfigError:
        return
    assert load_config(loaded.to_json()).config == loaded.config


@given(value=plain_values)
def test_any_data_as_the_whole_configuration(value: Any) -> None:
    try:
        structure(value, RunConfig)
    except ConfigError:
        return
    assert isinstance(value, dict)
