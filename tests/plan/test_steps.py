"""The steps from a configuration to a plan: visible in one screen, and entered again where a request begins."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import attrs
import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from lightx2v_core.config.keywords import lora_configs
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.plan import resolution as values
from lightx2v_core.plan import resolve as steps
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.resolution import Resolution

ORDER = ["locate", "identify", "set_up", "fill_request", "allot_memory", "write_plan"]


@pytest.fixture(scope="module")
def plugins() -> PluginSet:
    return load_plugins()


def resolve(folder: Path, plugins: PluginSet, **said: Any) -> Resolution:
    return steps.resolve(load_config({"model_path": str(folder), "device": "cpu", **said}), plugins)


def test_the_steps_are_called_in_their_order() -> None:
    tree = ast.parse(inspect.getsource(steps))
    calls = [
        node.func.id
        for function in ("resolve", "_from_request")
        for node in ast.walk(function_of(tree, function))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert [name for name in calls if name in ORDER] == ORDER


def test_a_step_is_read_at_a_glance() -> None:
    functions = [
        node for node in ast.parse(inspect.getsource(steps)).body if isinstance(node, ast.FunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert max(lengths.values()) <= 40, {name: length for name, length in lengths.items() if length > 40}


def test_what_a_step_found_out_is_not_changed_later() -> None:
    results = [
        value
        for value in vars(values).values()
        if isinstance(value, type) and value.__module__ == values.__name__
    ]
    assert len(results) >= len(ORDER)
    for result in results:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            object.__new__(result).anything = 1


def function_of(tree: ast.Module, name: str) -> ast.FunctionDef:
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def same(plan: Plan, other: Plan) -> bool:
    """Whether plans are equal but for who said the values of the request."""
    return attrs.evolve(plan, origins={}, request=other.request) == attrs.evolve(other, origins={}) and (
        plan.request == other.request
    )


@pytest.mark.parametrize(
    "sampling",
    [{"seed": 7}, {"steps": 3, "shift": 2.0}, {"size": [96, 64], "frames": 9}, {"guide_scale": [1.0]}],
)
def test_another_request_is_planned_as_if_it_were_the_first(
    sampling: dict[str, Any], tiny_wan21: Path, plugins: PluginSet
) -> None:
    base = resolve(tiny_wan21, plugins, prompt="a")
    again = steps.resolve_job(base, {"prompt": "b", **sampling})
    fresh = resolve(tiny_wan21, plugins, prompt="b", sampling=sampling)
    assert same(again.plan, fresh.plan)
    assert again.plan.origins["prompt"] == "prompt="
    assert again.setup is base.setup


def test_another_prompt_changes_nothing_else(tiny_wan21: Path, plugins: PluginSet) -> None:
    base = resolve(tiny_wan21, plugins, prompt="a")
    again = steps.with_prompt(base, "b")
    assert again.plan == attrs.evolve(base.plan, request=attrs.evolve(base.plan.request, prompt="b"))
    assert again.location.loaded.config.prompt == "b"


def test_other_lora_files_are_planned_as_if_they_were_the_first(
    tiny_wan21: Path, lora: Path, plugins: PluginSet
) -> None:
    base = resolve(tiny_wan21, plugins, prompt="a")
    said = [{"path": str(lora), "strength": 0.5}]
    again = steps.with_adapters(base, lora_configs(said))
    fresh = resolve(tiny_wan21, plugins, prompt="a", loras=said)
    assert again.plan == fresh.plan
    assert again.setup.quantization is base.setup.quantization
    back = steps.with_adapters(again, ())
    assert back.plan.adapters == ()
    # what applied them takes them back
    assert [choice for choice in back.plan.choices if choice.kind != "lora_applier"] == list(
        base.plan.choices
    )
    assert back.plan.notes == base.plan.notes


def test_a_loaded_model_stays_where_it_is(tiny_wan21: Path, plugins: PluginSet) -> None:
    base = resolve(tiny_wan21, plugins, prompt="a", offloader="auto")
    again = steps.resolve_job(base, {"frames": 9})
    assert again.memory.offloaders is base.memory.offloaders
    assert again.memory.forecast != base.memory.forecast
