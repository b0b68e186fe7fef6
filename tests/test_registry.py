"""The choice between implementations: order, names, limits, and the reasons a user reads."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightx2v_core.api import AttentionSpec, BuildContext, Device, PluginError, SchedulerSpec
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.fixtures import FakeDist

CPU = BuildContext()
HOPPER = BuildContext(device=Device(kind="cuda", name="H100", capability=(9, 0)), dtype="bfloat16")
TURING = BuildContext(device=Device(kind="cuda", name="T4", capability=(7, 5)), dtype="float16")


def attention(name: str, priority: int = 0, **fields: Any) -> AttentionSpec[Any]:
    return AttentionSpec(name=name, summary="a test", priority=priority, build=_not_called, **fields)


def scheduler(name: str, priority: int = 0) -> SchedulerSpec[Any]:
    return SchedulerSpec(name=name, summary="a test", priority=priority, build=_not_called)


def _not_called(*_args: Any) -> Any:
    raise AssertionError("choosing must not build")


def no(reason: str = "no kernel") -> Callable[[BuildContext], Sequence[str]]:
    return lambda _ctx: [reason]


def raising(exc: BaseException) -> Callable[[BuildContext], Sequence[str]]:
    def check(_ctx: BuildContext) -> Sequence[str]:
        raise exc

    return check


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(-2, 2)),
        unique_by=lambda item: item[0],
        min_size=2,
    ),
    st.randoms(use_true_random=False),
)
def test_order_is_priority_then_the_core_then_name_however_it_was_registered(
    items: list[tuple[str, int]], rng: random.Random
) -> None:
    shuffled = rng.sample(items, k=len(items))
    plugins = plugin_set(**{f"plugin{i}": attention(*item) for i, item in enumerate(shuffled)})
    names = [item.spec.name for item in Registry(plugins).candidates("attention")]
    expected = sorted([*items, ("sdpa", 0)], key=lambda item: (-item[1], item[0] != "sdpa", item[0]))
    assert names == [name for name, _ in expected]


def test_one_name_from_several_plugins_is_ordered_by_plugin() -> None:
    for order in itertools.permutations(("bb", "aa", "cc")):
        plugins = plugin_set(**{plugin: attention("same") for plugin in order})
        found = [i.qualified for i in Registry(plugins).candidates("attention") if i.spec.name == "same"]
        assert found == ["aa/same", "bb/same", "cc/same"]


def test_auto_takes_the_best_usable_one() -> None:
    registry = Registry(
        plugin_set(attention("best", 100, unusable=no()), attention("good", 50), attention("fair", 10))
    )
    chosen = registry.select("attention", "auto", CPU)
    assert chosen.name == "good"
    assert chosen.why == "auto: highest priority among usable ones"
    assert chosen.to_json() == {
        "use": "given/good",
        "why": chosen.why,
        "rejected": {"given/best": ["no kernel"]},
    }


@pytest.mark.parametrize(
    "kind", ["scheduler", "quantizer", "offloader", "lora_applier", "model", "weight_loader"]
)
def test_auto_is_for_attention_only(kind: str) -> None:
    with pytest.raises(PluginError, match=f"{kind} cannot be 'auto', since the choice changes the result"):
        Registry(plugin_set(scheduler("mine", 100))).select(kind, "auto", CPU)


def test_auto_without_a_usable_one_says_why_not() -> None:
    registry = Registry(plugin_set(attention("fast", 5, unusable=no("no CUDA"))))
    with pytest.raises(PluginError) as error:
        registry.select("attention", "auto", CPU, limits=lambda item: [f"{item.spec.name} is too small"])
    assert str(error.value) == (
        "no usable attention among auto:\n  given/fast: no CUDA\n  core/sdpa: sdpa is too small"
    )


def test_a_list_is_tried_in_order() -> None:
    registry = Registry(plugin_set(attention("first", unusable=no("gone")), attention("second", -5)))
    chosen = registry.select("attention", ["first", "given/second", "sdpa"], CPU, origin="--attention")
    assert chosen.name == "second"
    assert chosen.why == "--attention: first usable of first, given/second, sdpa"
    assert [(item.name, item.reasons) for item in chosen.rejected] == [("given/first", ("gone",))]


def test_a_list_may_fall_through_to_nothing() -> None:
    registry = Registry(plugin_set(attention("a", unusable=no("one")), attention("b", unusable=no("two"))))
    with pytest.raises(PluginError, match="(?s)among 'a', 'b':\n  given/a: one\n  given/b: two"):
        registry.select("attention", ["a", "b"], CPU)


def test_a_list_must_name_something_known() -> None:
    registry = Registry(plugin_set(attention("fast")))
    with pytest.raises(PluginError, match="unknown attention 'sdpaa'.*did you mean 'sdpa'"):
        registry.select("attention", ["fast", "sdpaa"], CPU)
    with pytest.raises(PluginError, match="no implementation given"):
        registry.select("attention", [], CPU)


def test_a_named_choice_never_falls_back() -> None:
    registry = Registry(plugin_set(attention("fast", 50, unusable=lambda _ctx: ["no kernel", "no driver"])))
    with pytest.raises(PluginError) as error:
        registry.select("attention", "fast", CPU)
    assert str(error.value) == "no usable attention among 'fast':\n  given/fast: no kernel; no driver"
    assert error.value.exit_status == 2


def test_a_named_choice_names_plugins_that_did_not_load(fake_dist: FakeDist) -> None:
    fake_dist("lost-dist", modules={"lost.py": "import no_such_lib"}, plugins={"lost": "lost"})
    fake_dist("old-dist", modules={"old.py": ""}, plugins={"old": "old"}, requires=["lightx2v-core>=99"])
    fake_dist("off-dist", modules={"off.py": ""}, plugins={"off": "off"})
    registry = Registry(load_plugins(environ={}, disable=["off"]))
    with pytest.raises(PluginError) as error:
        registry.select("attention", "lost-kernel", CPU)
    text = str(error.value)
    assert "unknown attention 'lost-kernel', installed: " in text
    assert "  not loaded: lost (broken: ModuleNotFoundError: No module named 'no_such_lib')" in text
    assert "  not loaded: old (incompatible: needs lightx2v-core>=99, found " in text
    assert "  not loaded: off (disabled: excluded by name)" in text
    with pytest.raises(PluginError, match="not loaded: lost"):
        registry.select("attention", "sdpa", CPU, limits=lambda _item: ["not today"])


def test_a_name_of_two_plugins_needs_its_plugin() -> None:
    registry = Registry(plugin_set(acme=attention("fast"), other=attention("fast"), third=attention("lone")))
    with pytest.raises(
        PluginError, match="'fast' is provided by more than one plugin: use acme/fast or other/fast"
    ):
        registry.select("attention", "fast", CPU)
    assert registry.select("attention", "other/fast", CPU).chosen.plugin == "other"
    assert registry.select("attention", "acme/fast", CPU).chosen.plugin == "acme"
    assert registry.select("attention", "lone", CPU).name == "lone"
    assert registry.select("attention", "auto", CPU).chosen.qualified == "core/sdpa"
    faster = Registry(plugin_set(acme=attention("fast", 1), other=attention("fast", 1)))
    assert faster.select("attention", "auto", CPU).chosen.qualified == "acme/fast"


def test_a_plugin_does_not_replace_what_the_core_has() -> None:
    registry = Registry(plugin_set(acme=attention("sdpa", 100)))
    with pytest.raises(PluginError, match="use acme/sdpa or core/sdpa"):
        registry.select("attention", "sdpa", CPU)
    assert registry.select("attention", "core/sdpa", CPU).chosen.plugin == "core"
    assert [item.qualified for item in registry.candidates("attention")] == ["acme/sdpa", "core/sdpa"]


def test_a_plugin_does_not_break_defaults_by_taking_their_name() -> None:
    registry = Registry(
        plugin_set(acme=scheduler("unipc", 100), other=scheduler("mine"), third=scheduler("mine"))
    )
    for origin in ("default", "default of wan2.1-t2v-1.3b"):
        assert registry.select("scheduler", "unipc", CPU, origin=origin).chosen.qualified == "core/unipc"
    with pytest.raises(PluginError, match="use acme/unipc or core/unipc"):
        registry.select("scheduler", "unipc", CPU, origin="--scheduler")
    with pytest.raises(PluginError, match="use acme/unipc or core/unipc"):
        registry.find("scheduler", "unipc")
    with pytest.raises(PluginError, match="use other/mine or third/mine"):
        registry.select("scheduler", "mine", CPU, origin="default")


def test_kinds_have_names_of_their_own() -> None:
    registry = Registry(plugin_set(attention("mine"), scheduler("mine")))
    assert isinstance(registry.find("attention", "mine").spec, AttentionSpec)
    assert isinstance(registry.find("scheduler", "given/mine").spec, SchedulerSpec)
    with pytest.raises(PluginError, match="unknown offloader 'mine', installed: none"):
        registry.find("offloader", "mine")


@pytest.mark.parametrize(
    ("fields", "ctx", "reasons"),
    [
        ({}, CPU, ()),
        ({"devices": frozenset({"cuda"})}, CPU, ("runs on cuda, not on cpu",)),
        ({"devices": frozenset({"cpu"})}, HOPPER, ("runs on cpu, not on cuda",)),
        ({"devices": frozenset({"cuda"})}, HOPPER, ()),
        ({"min_capability": (8, 0)}, CPU, ()),
        ({"min_capability": (8, 0)}, HOPPER, ()),
        ({"min_capability": (9, 0)}, HOPPER, ()),
        ({"min_capability": (8, 9)}, TURING, ("needs compute capability 8.9, T4 has 7.5",)),
        ({"min_capability": (10, 0)}, HOPPER, ("needs compute capability 10.0, H100 has 9.0",)),
        ({"unusable": no("not compiled")}, CPU, ("not compiled",)),
        ({"unusable": lambda _ctx: "one text"}, CPU, ("one text",)),
        ({"unusable": raising(OSError("lib\nmissing"))}, CPU, ("its check failed: OSError: lib missing",)),
        ({"unusable": raising(ImportError("xyz"))}, CPU, ("its check failed: ImportError: xyz",)),
        ({"unusable": raising(SystemExit(1))}, CPU, ("its check failed: SystemExit: 1",)),
        ({"unusable": lambda _ctx: 1}, CPU, ("its check failed: TypeError: 'int' object is not iterable",)),
        ({"unusable": lambda ctx: [ctx.device.kind, ctx.dtype]}, HOPPER, ("cuda", "bfloat16")),
        # a plugin's own check may rely on what it declared
        ({"devices": frozenset({"cuda"}), "unusable": no("never asked")}, CPU, ("runs on cuda, not on cpu",)),
    ],
)
def test_reasons(fields: dict[str, Any], ctx: BuildContext, reasons: tuple[str, ...]) -> None:
    item = Registry(plugin_set(attention("mine", **fields))).find("attention", "mine")
    assert item.reasons(ctx) == reasons


def test_ctrl_c_in_a_check_passes_and_one_that_it_raises_itself_does_not() -> None:
    def interrupted(_ctx: BuildContext) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return []

    given = plugin_set(
        attention("mine", unusable=raising(KeyboardInterrupt())), attention("real", unusable=interrupted)
    )
    mine, real = (Registry(given).find("attention", name) for name in ("mine", "real"))
    assert mine.reasons(CPU) == ("its check failed: KeyboardInterrupt",)
    with pytest.raises(KeyboardInterrupt):
        real.reasons(CPU)


@pytest.mark.parametrize(
    ("extra", "reasons"),
    [
        ("met", ()),
        ("absent", ("acme-no-such-kernel>=2 is not installed",)),
        ("old", ("click>=999 is not installed, found ",)),
        ("both", ("acme-no-such-kernel is not installed", "click<0.1 is not installed, found ")),
        ("elsewhere", ()),
        ("kernles", ("acme 1.0 has no extra 'kernles'",)),
    ],
)
def test_requirements_of_an_extra(fake_dist: FakeDist, extra: str, reasons: tuple[str, ...]) -> None:
    fake_dist(
        "acme",
        modules={
            "acme_plugin.py": f"""
            from lightx2v_core.api import AttentionSpec, hookimpl

            @hookimpl
            def lightx2v_attention_backends():
                return [AttentionSpec(name="acme", summary="a test", build=print, extra={extra!r})]
            """
        },
        plugins={"acme": "acme_plugin"},
        requires=[
            "lightx2v-core",
            "acme-never-asked-for>=1",
            "click>=1; extra == 'met'",
            "acme-no-such-kernel>=2; extra == 'absent'",
            "click>=999; extra == 'old'",
            "acme-no-such-kernel; extra == 'both'",
            "click<0.1; extra == 'both'",
            "acme-no-such-kernel; extra == 'elsewhere' and sys_platform == 'plan9'",
        ],
        extras=["met", "absent", "old", "both", "elsewhere"],
    )
    item = Registry(load_plugins(environ={})).find("attention", "acme")
    found = item.reasons(CPU)
    assert len(found) == len(reasons)
    assert all(text.startswith(start) for text, start in zip(found, reasons, strict=True))


def test_an_unreadable_requirement_is_a_reason(fake_dist: FakeDist) -> None:
    fake_dist(
        "acme",
        modules={
            "acme_plugin.py": """
            from lightx2v_core.api import AttentionSpec, hookimpl

            @hookimpl
            def lightx2v_attention_backends():
                return [AttentionSpec(name="acme", summary="a test", build=print, extra="kernels")]
            """
        },
        plugins={"acme": "acme_plugin"},
        requires=["some thing; extra == 'kernels'"],
        extras=["kernels"],
    )
    item = Registry(load_plugins(environ={})).find("attention", "acme")
    assert item.reasons(CPU)[0].startswith("its check failed: InvalidRequirement")
