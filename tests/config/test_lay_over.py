"""Values over a configuration that is there already: as if all of it had been read again, and without doing so."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from lightx2v_core.config import load as loading
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig, load_config
from lightx2v_core.config.overlay import lay_over
from lightx2v_core.errors import ConfigError

BASE: dict[str, Any] = {
    "prompt": "a",
    "sampling": {"steps": 20, "seed": 3},
    "scheduler": {"use": ["distill"], "options": {"distill": {"steps": 4}}},
    "components": {"dit": {"quantizer": "int8-torch"}, "vae": {"path": "vae.pth"}},
    "loras": ["style.safetensors"],
}
GIVEN: list[dict[str, Any]] = [
    {"prompt": "b"},
    {"sampling.steps": 5, "sampling.size": "832x480", "sampling.guide_scale": 1.0},
    {"scheduler": "euler"},
    {"scheduler": {"use": "euler", "options": {"euler": {"x": 1}}}},
    {"quantizer": "fp8-torch"},
    {"components.dit.offloader": "disk", "offloader": "cpu"},
    {"inputs.image": "x.png", "memory.ram_limit": "3GB"},
    {"loras": [], "output.crf": 7},
    {"infer_steps": 9},
    {},
]


def values(given: dict[str, Any]) -> list[Value]:
    return [Value(path=tuple(key.split(".")), value=value, origin=f"{key}=") for key, value in given.items()]


@pytest.mark.parametrize("given", GIVEN, ids=" ".join)
def test_the_configuration_is_as_if_it_had_been_read_again(given: dict[str, Any]) -> None:
    base = load_config(BASE)
    laid, read = lay_over(base, values(given)), load_config(base.to_json(), values(given))
    assert laid.config == read.config
    assert laid.warnings == read.warnings
    assert laid.notes == read.notes
    assert laid.beneath == read.beneath
    said = {key: origin for key, origin in read.origins.items() if origin != "config"}
    assert {key: origin for key, origin in laid.origins.items() if origin != "config"} == said


@pytest.mark.parametrize(
    "given",
    [
        {"sampling.steps": 0},
        {"prompt": 3},
        {"sampling.stepz": 3},
        {"prompts": "a"},
        {"prompt.x": "a"},
        {"output": 3},
    ],
    ids=" ".join,
)
def test_a_mistake_is_said_as_if_it_had_been_read_again(given: dict[str, Any]) -> None:
    base = load_config(BASE)
    with pytest.raises(ConfigError) as read:
        load_config(base.to_json(), values(given))
    with pytest.raises(ConfigError) as laid:
        lay_over(base, values(given))
    assert str(laid.value) == str(read.value)


def test_only_what_changes_is_structured(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_config(BASE)
    structured: list[set[str]] = []
    structure = loading.structure

    def counted(data: Any, *arguments: Any, **named: Any) -> Any:
        structured.append(set(data))
        return structure(data, *arguments, **named)

    monkeypatch.setattr(loading, "structure", counted)
    laid = lay_over(base, values({"prompt": "b", "sampling.seed": 4}))
    assert structured == [{"prompt", "sampling"}]
    assert laid.config.loras is base.config.loras
    assert laid == attrs.evolve(laid, config=attrs.evolve(laid.config))
    assert isinstance(laid, LoadedConfig)
