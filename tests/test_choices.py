"""Sections of the configuration: options for whichever is chosen, wishes, and models by other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import frozen

from lightx2v_core.config.load import load_config, parse_set
from lightx2v_core.discovery.plugins import Plugin, PluginSet, Provided
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import ConfigError, PluginError
from lightx2v_core.plan.selection import by_true_name, structured_options
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import AttentionSpec, ModelSpec

CTX = BuildContext()


@frozen(kw_only=True)
class Tiles:
    """Options of one model."""

    tile: int = 0
    tiny: bool = False


@frozen(kw_only=True)
class Plain:
    """Options of another."""

    tile: int = 0


def _none(*_arguments: Any) -> Any:
    raise AssertionError("never called")


def attention(name: str, reasons: Sequence[str] = ()) -> AttentionSpec[Any]:
    return AttentionSpec(name=name, summary=name, build=_none, unusable=lambda _ctx: reasons)


def model(name: str, config: type[Any], **more: Any) -> ModelSpec[Any]:
    parts = (ComponentSpec(name="high", summary="network", files=("*",), group="dit"),)
    return ModelSpec(
        name=name, summary=name, config=config, tasks={}, components=parts, recognize=_none, defaults=_none,
        geometry=_none, memory=_none, build=_none, **more,
    )  # fmt: skip


def registry(**kinds: Any) -> Registry:
    specs = tuple((kind, spec) for kind, found in kinds.items() for spec in found)
    provided = tuple(Provided(plugin="acme", kind=kind, spec=spec) for kind, spec in specs)
    return Registry(
        PluginSet(plugins=(Plugin(name="acme", module="acme", state="loaded", provides=provided),))
    )


MODELS = registry(
    model=[model("a", Tiles, aliases={"old-a": None, "old-a_distill": True}), model("b", Plain)]
)


def options(data: dict[str, Any], name: str, *, whole: bool = True) -> Any:
    loaded = load_config({"model": data})
    chosen = MODELS.find("model", name)
    return structured_options(loaded.config.model, MODELS, "model", chosen, loaded=loaded, whole=whole)


def test_options_for_whichever_is_chosen() -> None:
    shared = {"options": {"*": {"tile": 64}, "a": {"tiny": True}}}
    assert options(shared, "a") == Tiles(tile=64, tiny=True)
    assert options(shared, "b") == Plain(tile=64)
    assert options({"options": {"*": {"tile": 64}, "a": {"tile": 32}}}, "a") == Tiles(tile=32)


def test_an_option_that_the_chosen_one_does_not_have() -> None:
    shared = {"options": {"*": {"tiny": True}}}
    assert options(shared, "b", whole=False) == Plain()
    with pytest.raises(ConfigError, match="model b has no option 'tiny' .*; it has tile"):
        options(shared, "b")
    loaded = load_config({"use_tae": True})
    with pytest.raises(ConfigError, match=r"model b has no option 'tiny_vae' \(use_tae in config\)"):
        structured_options(loaded.config.model, MODELS, "model", MODELS.find("model", "b"), loaded=loaded)


def test_a_wrong_value_names_the_key_that_said_it() -> None:
    loaded = load_config({}, [parse_set("model.options.*.tile=true")])
    with pytest.raises(ConfigError, match=r"expected an integer.*\(--set model.options.\*.tile\)"):
        structured_options(loaded.config.model, MODELS, "model", MODELS.find("model", "a"), loaded=loaded)


def test_a_wish_is_passed_over_where_it_is_not_installed() -> None:
    found = registry(attention=[attention("sdpa"), attention("slow", ("too slow",))])
    chosen = found.select("attention", ("fast?", "slow?", "sdpa"), CTX, origin="x.json")
    assert chosen.name == "sdpa"
    assert {item.name: item.reasons for item in chosen.rejected} == {
        "fast": ("not installed",), "acme/slow": ("too slow",),
    }  # fmt: skip
    assert found.select("attention", "sdpa?", CTX).name == "sdpa"
    with pytest.raises(PluginError, match=r"(?s)no usable attention among 'fast\?', 'slow\?'.*not installed"):
        found.select("attention", ("fast?", "slow?"), CTX)
    with pytest.raises(PluginError, match="unknown attention 'fast'"):
        found.select("attention", ("fast", "sdpa"), CTX)
    with pytest.raises(PluginError, match=r"unknown attention 'fast'.*\(kernel in x.json\)"):
        found.select("attention", "fast", CTX, origin="kernel in x.json")


def test_options_of_a_wish() -> None:
    found = registry(attention=[attention("sdpa")])
    data = {"use": ["fast?", "sdpa"], "options": {"fast": {"any": 1}}}
    loaded = load_config({"attention": data})
    structured_options(loaded.config.attention, found, "attention", found.find("attention", "sdpa"))
    loaded = load_config({"attention": {**data, "options": {"fats": {}}}})
    with pytest.raises(PluginError, match="unknown attention 'fats'"):
        structured_options(loaded.config.attention, found, "attention", found.find("attention", "sdpa"))


def test_models_by_other_names() -> None:
    assert MODELS.find("model", "old-a").spec.name == "a"
    loaded, notes = by_true_name(load_config({"model_cls": "old-a"}), MODELS)
    assert loaded.config.model.use == ("acme/a",)
    assert loaded.config.components == {}
    assert notes == ("old-a (model_cls in config) is a",)
    loaded, notes = by_true_name(load_config({"model": "old-a_distill"}), MODELS)
    assert loaded.config.components["dit"].distilled is True
    assert loaded.origin("components", "dit", "distilled") == "model old-a_distill, config"
    assert notes == ("old-a_distill (config) is a with a distilled network",)
    same = load_config({"model": "a"})
    assert by_true_name(same, MODELS) == (same, ())
    both = load_config({"model": "old-a_distill", "components": {"dit": {"distilled": False}}})
    with pytest.raises(ConfigError, match="contradicts the model 'old-a_distill'"):
        by_true_name(both, MODELS)
    both = load_config({"model": "old-a_distill", "components": {"dit": {"distilled": True, "path": "x"}}})
    assert by_true_name(both, MODELS)[0].config.components["dit"].path == "x"
    with pytest.raises(PluginError, match="unknown model 'old-b'"):
        MODELS.find("model", "old-b")
