"""Discovery: what each kind of broken, unwanted or ill-fitting plugin costs, and what it is called."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core import __version__
from lightx2v_core.api import PluginError
from lightx2v_core.discovery.plugins import Plugin, PluginSet, load_plugins
from lightx2v_core.testing.fixtures import FakeDist

HEAD = "from lightx2v_core.api import AttentionSpec, SchedulerSpec, hookimpl\n"


def attention(*names: str, **fields: str) -> str:
    """Source of a plugin module that offers attention backends."""
    more = "".join(f", {name}={value}" for name, value in fields.items())
    specs = ", ".join(f"AttentionSpec(name={n!r}, summary='a test', build=print{more})" for n in names)
    return f"{HEAD}\n@hookimpl\ndef lightx2v_attention_backends():\n    return [{specs}]\n"


def load(**options: Any) -> PluginSet:
    """Load the plugins, independent of the environment of the test run."""
    return load_plugins(**{"environ": {}, **options})


def one(fake_dist: FakeDist, source: str, **parts: Any) -> Plugin:
    """The plugin ``acme`` made of one module. The core and a good neighbour must not suffer from it."""
    fake_dist("acme-dist", modules={"acme_plugin.py": source}, plugins={"acme": "acme_plugin"}, **parts)
    fake_dist("zzz-dist", modules={"zzz_plugin.py": attention("zzz")}, plugins={"zzz": "zzz_plugin"})
    plugins = load()
    assert plugins["core"].state == plugins["zzz"].state == "loaded"
    assert [item.qualified for item in plugins["zzz"].provides] == ["zzz/zzz"]
    found = plugins["acme"]
    about = [warning for warning in plugins.warnings if "acme" in warning]
    assert len(about) == (found.state in ("broken", "incompatible"))
    assert all("\n" not in warning and found.reason in warning for warning in about)
    return found


def test_a_good_plugin_is_loaded(fake_dist: FakeDist) -> None:
    found = one(fake_dist, attention("fast", "slow"), version="2.3")
    assert (found.state, found.reason, found.dist_name, found.version) == ("loaded", "", "acme-dist", "2.3")
    assert [item.qualified for item in found.provides] == ["acme/fast", "acme/slow"]
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import acme_has_no_such_library",
            "ModuleNotFoundError: No module named 'acme_has_no_such_library'",
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise SystemExit", "SystemExit"),
        ("def f(:", "SyntaxError: "),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("x = 1", "TypeError: 'acme_plugin' implements no lightx2v-core hook"),
        (HEAD + "def lightx2v_schedulers(): return []", "implements no lightx2v-core hook"),
        (
            HEAD + "@hookimpl\ndef lightx2v_attention_backend(): return []",
            "unknown hook 'lightx2v_attention_backend'; did you mean 'lightx2v_attention_backends'?",
        ),
        (
            attention("fine") + "@hookimpl\ndef lightx2v_shedulers(): return []",
            "unknown hook 'lightx2v_shedulers'; did you mean 'lightx2v_schedulers'?",
        ),
        (
            HEAD + "@hookimpl\ndef lightx2v_schedulers(device): return []",
            "hooks have no arguments",
        ),
        (
            HEAD + "@hookimpl\ndef lightx2v_schedulers(): return [1]",
            "lightx2v_schedulers returned 1, not a SchedulerSpec",
        ),
        (
            attention("a").replace("lightx2v_attention_backends", "lightx2v_schedulers"),
            "not a SchedulerSpec",
        ),
        (
            HEAD + "@hookimpl\ndef lightx2v_schedulers(): pass",
            "lightx2v_schedulers returned None, not a list of SchedulerSpec",
        ),
        (
            HEAD + "@hookimpl\ndef lightx2v_schedulers(): return 'unipc'",
            "lightx2v_schedulers returned 'unipc', not a list of SchedulerSpec",
        ),
        (HEAD + "@hookimpl\ndef lightx2v_schedulers(): raise OSError('boom')", "OSError: boom"),
        (HEAD + "@hookimpl\ndef lightx2v_schedulers(): raise SystemExit(1)", "SystemExit: 1"),
        (HEAD + "@hookimpl(wrapper=True)\ndef lightx2v_schedulers(): return (yield)", "is a hook wrapper"),
        (attention("same", "same"), "lightx2v_attention_backends returned two specs named 'same'"),
        (attention("Upper"), "'name' must match regex"),
        (attention("a/b"), "'name' must match regex"),
        (attention("auto"), "returned 'auto' with a wrong name: 'auto'"),
        (attention("a", priority="'high'"), "returned 'a' with a wrong priority: 'high'"),
        (attention("a", priority="1.5"), "wrong priority"),
        (attention("a", devices="'cuda'"), "returned 'a' with a wrong devices: 'cuda'"),
        (attention("a", min_capability="8"), "wrong min_capability"),
        (attention("a", config="dict"), "wrong config"),
        (attention("a", unusable="[]"), "wrong unusable"),
        (attention("a", extra="1"), "wrong extra"),
        (attention("a", speed="1"), "unexpected keyword argument 'speed'"),
    ],
)
def test_a_broken_plugin_costs_one_line(fake_dist: FakeDist, source: str, reason: str) -> None:
    found = one(fake_dist, source)
    assert found.state == "broken"
    assert reason in found.reason
    assert found.provides == ()
    assert "Traceback" in found.traceback


def test_entry_point_that_leads_nowhere(fake_dist: FakeDist) -> None:
    fake_dist("a-dist", modules={"a_plugin.py": "nothing = None"}, plugins={"a": "a_plugin:nothing"})
    fake_dist("b-dist", modules={}, plugins={"b": "b_plugin"})
    fake_dist("c-dist", modules={"c_plugin.py": ""}, plugins={"c": "c_plugin:missing"})
    plugins = load()
    assert [plugins[name].state for name in "abc"] == ["broken"] * 3
    assert "is None, not a module" in plugins["a"].reason
    assert "b_plugin" in plugins["b"].reason
    assert "missing" in plugins["c"].reason


def test_a_plugin_may_use_hooks_of_a_newer_core(fake_dist: FakeDist) -> None:
    newer = "\n@hookimpl(optionalhook=True)\ndef lightx2v_caches(): return ['newer']\n"
    assert one(fake_dist, attention("fine") + newer).state == "loaded"


def test_hooks_may_be_generators_and_carry_another_name(fake_dist: FakeDist) -> None:
    source = attention("fine").replace("    return [", "    yield from [")
    source = source.replace("@hookimpl\n", "@hookimpl(specname='lightx2v_attention_backends')\n")
    found = one(fake_dist, source.replace("def lightx2v_attention_backends", "def kernels"))
    assert [item.spec.name for item in found.provides] == ["fine"]


def test_a_real_interruption_passes_and_one_that_a_plugin_makes_up_does_not(fake_dist: FakeDist) -> None:
    assert one(fake_dist, "raise KeyboardInterrupt('mine')").reason == "KeyboardInterrupt: mine"
    for number, code in enumerate(("{0}", "try:\n    {0}\nexcept BaseException:\n    pass")):
        name = f"real{number}"
        source = "import signal\n" + code.format("signal.raise_signal(signal.SIGINT)") + "\nx = 1"
        fake_dist(name, modules={f"{name}_plugin.py": source}, plugins={name: f"{name}_plugin"})
        with pytest.raises(KeyboardInterrupt):
            load(only=[name])


@pytest.mark.parametrize(
    ("requires", "state"),
    [
        (("lightx2v-core>=0.0.1",), "loaded"),
        (("lightx2v_core (>=0.0.1)",), "loaded"),
        (("numpy>=1", f"LightX2V.Core[wan21]=={__version__}"), "loaded"),
        ((), "loaded"),
        (("lightx2v-core>=99; extra == 'future'",), "loaded"),
        (("lightx2v-core-tools>=99",), "loaded"),
        (("lightx2v-core>=99",), "incompatible"),
        (("lightx2v-core (>=99)",), "incompatible"),
        (("LightX2V_Core<0.0.1",), "incompatible"),
        (("lightx2v-core~=99.1",), "incompatible"),
        (("lightx2v-core>=99; python_version >= '3'",), "incompatible"),
        (("lightx2v-core>=nonsense",), "broken"),
    ],
)
def test_own_requirement_is_checked_before_the_import(
    fake_dist: FakeDist, tmp_path: Path, requires: tuple[str, ...], state: str
) -> None:
    mark = tmp_path / "imported"
    source = f"open({str(mark)!r}, 'w').close()\n" + attention("fine")
    found = one(fake_dist, source, requires=requires)
    assert found.state == state, found.reason
    assert mark.exists() == ("acme_plugin" in sys.modules) == (state == "loaded")
    if state == "incompatible":
        assert found.reason.startswith("needs lightx2v-core")
        assert found.reason.endswith(f", found {__version__}")


def test_metadata_that_is_gone(fake_dist: FakeDist) -> None:
    folder = fake_dist("acme", modules={"acme_plugin.py": attention("a")}, plugins={"acme": "acme_plugin"})
    (folder / "acme-1.0.dist-info" / "METADATA").unlink()
    found = load()["acme"]
    assert found.state == "broken"
    assert "metadata" in found.reason
    assert (found.dist_name, found.version) == ("(no distribution)", "")


def test_the_same_distribution_found_twice_is_one_plugin(
    fake_dist: FakeDist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_dist("acme", modules={"acme_plugin.py": attention("a")}, plugins={"acme": "acme_plugin"})
    link = tmp_path / "lib64"
    link.symlink_to(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(link)])
    plugins = load()
    assert [plugin.name for plugin in plugins.plugins].count("acme") == 1
    assert plugins["acme"].state == "loaded"


def test_entry_points_listed_twice_are_one_plugin(
    fake_dist: FakeDist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under Python installations whose own listing does not leave out second copies."""
    parts: dict[str, Any] = {
        "modules": {"acme_plugin.py": attention("a")},
        "plugins": {"acme": "acme_plugin"},
    }
    fake_dist("acme", version="1.0", **parts)
    fake_dist("acme", version="2.0", **parts)
    entries = [e for dist in metadata.distributions(name="acme") for e in dist.entry_points]
    assert len(entries) == 2
    monkeypatch.setattr(metadata, "entry_points", lambda group: [e for e in entries if e.group == group])
    assert [(p.name, p.version, p.state) for p in load().plugins[1:]] == [("acme", "2.0", "loaded")]


def test_two_distributions_with_one_plugin_name(fake_dist: FakeDist) -> None:
    fake_dist("first", modules={"a_one.py": attention("one")}, plugins={"acme": "a_one"})
    fake_dist("second", modules={"b_two.py": attention("two")}, plugins={"acme": "b_two"})
    plugins = load()
    assert [(p.dist_name, p.state) for p in plugins.plugins if p.name == "acme"] == [
        ("first", "loaded"),
        ("second", "broken"),
    ]
    assert plugins["second"].reason == "ValueError: the plugin name 'acme' is already in use"
    assert [item.qualified for item in plugins.provided("attention")].count("acme/one") == 1
    assert "acme/two" not in [item.qualified for item in plugins.provided("attention")]

    without = load(disable=["first"])
    assert [without[name].state for name in ("first", "second")] == ["disabled", "loaded"]


def test_a_broken_plugin_does_not_keep_its_name(fake_dist: FakeDist) -> None:
    typo = attention("one").replace("backends", "backend")
    fake_dist("first", modules={"a_one.py": typo}, plugins={"acme": "a_one"})
    fake_dist("second", modules={"b_two.py": attention("two")}, plugins={"acme": "b_two"})
    plugins = load()
    assert (plugins["first"].state, plugins["second"].state) == ("broken", "loaded")
    assert [item.qualified for item in plugins["second"].provides] == ["acme/two"]


def test_a_plugin_cannot_be_called_core(fake_dist: FakeDist) -> None:
    fake_dist("impostor", modules={"impostor.py": attention("fake")}, plugins={"core": "impostor"})
    plugins = load()
    assert plugins["core"].dist_name == "lightx2v-core"
    assert plugins["impostor"].state == "broken"
    assert "core/fake" not in [item.qualified for item in plugins.provided("attention")]


def test_one_module_under_two_names(fake_dist: FakeDist) -> None:
    names = {"a": "acme_plugin", "b": "acme_plugin"}
    fake_dist("acme", modules={"acme_plugin.py": attention("x")}, plugins=names)
    plugins = load()
    assert (plugins["a"].state, plugins["b"].state) == ("loaded", "broken")
    assert [item.qualified for item in plugins.provided("attention") if item.spec.name == "x"] == ["a/x"]


def test_plugins_are_in_name_order(fake_dist: FakeDist) -> None:
    for name in ("mm", "zz", "aa"):
        fake_dist(name, modules={f"{name}_plugin.py": attention(name)}, plugins={name: f"{name}_plugin"})
    names = [plugin.name for plugin in load().plugins]
    assert names[0] == "core"
    assert names[1:] == sorted(names[1:])
    assert {"aa", "mm", "zz"} < set(names)


@pytest.fixture
def pair(fake_dist: FakeDist) -> None:
    """A distribution with two plugins, and one with another name than its plugin."""
    fake_dist(
        "acme-kernels",
        modules={"acme_a.py": attention("a"), "acme_b.py": attention("b")},
        plugins={"acme-a": "acme_a", "acme-b": "acme_b"},
    )
    fake_dist("Other_Dist", modules={"other_plugin.py": attention("o")}, plugins={"other": "other_plugin"})


def states(plugins: PluginSet) -> dict[str, str]:
    return {p.name: p.state for p in plugins.plugins if p.name in ("acme-a", "acme-b", "other", "core")}


ON, OFF = "loaded", "disabled"


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("options", "environ", "loaded"),
    [
        ({}, {}, "abo"),
        ({"disable": ["acme-a"]}, {}, "bo"),
        ({"disable": ["acme-kernels"]}, {}, "o"),
        ({"disable": ["Acme_Kernels", "other-dist"]}, {}, ""),
        ({"only": ["other"]}, {}, "o"),
        ({"only": ["other.dist", "acme-b"]}, {}, "bo"),
        ({"only": ["core"]}, {}, ""),
        ({"only": []}, {}, ""),
        ({"only": ["acme-kernels"], "disable": ["acme-a"]}, {}, "b"),
        ({}, {"LIGHTX2V_DISABLE_PLUGINS": " acme-a , other,"}, "b"),
        ({}, {"LIGHTX2V_DISABLE_PLUGINS": ""}, "abo"),
        ({}, {"LIGHTX2V_PLUGINS": "acme-kernels"}, "ab"),
        ({}, {"LIGHTX2V_PLUGINS": ""}, ""),
        ({"only": ["other", "acme-a"]}, {"LIGHTX2V_PLUGINS": "acme-a,acme-b"}, "a"),
        ({"disable": ["acme-b"]}, {"LIGHTX2V_DISABLE_PLUGINS": "acme-a"}, "o"),
    ],
)
def test_switching_plugins_off(options: dict[str, Any], environ: dict[str, str], loaded: str) -> None:
    plugins = load(environ=environ, **options)
    names = {"acme-a": "a", "acme-b": "b", "other": "o"}
    assert states(plugins) == {"core": ON, **{n: ON if key in loaded else OFF for n, key in names.items()}}
    assert plugins.warnings == ()


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        (
            {"disable": ["acme-c"]},
            {},
            r"--disable-plugin: unknown plugins: acme-c; .*did you mean 'acme-",
        ),
        ({"disable": ["othr"]}, {}, "did you mean 'other'"),
        ({"disable": ["acme-kernel"]}, {}, "did you mean 'acme-kernels'"),
        ({"only": ["othre", "acme-a"]}, {}, "--only-plugins: unknown plugins: othre; .*'other'"),
        ({}, {"LIGHTX2V_PLUGINS": "othr"}, "LIGHTX2V_PLUGINS: unknown plugins: othr"),
        ({}, {"LIGHTX2V_DISABLE_PLUGINS": "othr"}, "LIGHTX2V_DISABLE_PLUGINS: unknown plugins: othr"),
        ({"disable": ["core"]}, {}, "implementations of the core cannot be disabled"),
        ({"disable": ["lightx2v_core"]}, {}, "implementations of the core cannot be disabled"),
    ],
)
def test_unknown_names_are_errors(options: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(PluginError, match=message) as error:
        load(environ=environ, **options)
    assert error.value.exit_status == 2


def test_a_disabled_plugin_is_not_imported(fake_dist: FakeDist) -> None:
    fake_dist("acme", modules={"acme_plugin.py": "raise OSError"}, plugins={"acme": "acme_plugin"})
    plugins = load(disable=["acme"])
    assert plugins["acme"].state == "disabled"
    assert plugins.warnings == ()
    assert "acme_plugin" not in sys.modules


def test_strict_turns_warnings_into_an_error(fake_dist: FakeDist) -> None:
    fake_dist("acme", modules={"acme_plugin.py": "raise OSError('x')"}, plugins={"acme": "acme_plugin"})
    fake_dist("old", modules={"old.py": ""}, plugins={"old": "old"}, requires=["lightx2v-core>=99"])
    with pytest.raises(PluginError, match="(?s)acme .*is broken .*old .*is incompatible"):
        load(strict=True)
    assert load(strict=True, disable=["acme", "old"])["acme"].state == "disabled"


def test_lookup_of_a_plugin_prefers_its_name(fake_dist: FakeDist) -> None:
    fake_dist("yyy", modules={"p_one.py": attention("one")}, plugins={"xxx": "p_one"})
    fake_dist("zzz", modules={"p_two.py": attention("two")}, plugins={"yyy": "p_two"})
    plugins = load()
    assert plugins["yyy"].module == "p_two"
    assert plugins["xxx"].module == "p_one"
    with pytest.raises(PluginError, match="no plugin 'yyx'"):
        plugins["yyx"]
