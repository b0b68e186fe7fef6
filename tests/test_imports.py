"""What commands import, and what that costs: listing plugins must be quick with any set of plugins."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.testing import HEAVY, assert_light_import, environment, heavy_imports
from lightx2v_core.testing.fixtures import FakeDist

#: what the installed program does
MAIN = "from lightx2v_core.cli import main; main()"


@pytest.mark.parametrize(
    "module",
    [
        "lightx2v_core",
        "lightx2v_core.api",
        "lightx2v_core.builtin.plugin",
        "lightx2v_core.cli",
        "lightx2v_core.cli.plugins",
        "lightx2v_core.plan.device",
        "lightx2v_core.discovery.plugins",
        "lightx2v_core.discovery.registry",
        "lightx2v_core.testing",
        "lightx2v_core.weights",
    ],
)
def test_modules_that_import_nothing_heavy(module: str) -> None:
    assert_light_import(module)


@pytest.mark.parametrize(
    "module",
    [
        "lightx2v_core.cli.run",
        "lightx2v_core.cli.plan",
        "lightx2v_core.cli.config",
        "lightx2v_core.plan.resolve",
    ],
)
def test_modules_that_read_configurations_import_no_tensors(module: str) -> None:
    assert_light_import(module, forbidden=[name for name in HEAVY if name != "cattrs"])


def test_entry_modules_of_installed_plugins_are_light() -> None:
    modules = [p.module for p in load_plugins(environ={}).plugins if p.dist_name.startswith("lightx2v-")]
    assert "lightx2v_core.builtin.plugin" in modules
    for module in modules:
        assert_light_import(module)


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("plugins",), ("plugins", "--json"), ("plugins", "--requirements"),
     ("plugins", "show", "core"), ("run", "--help"), ("plan", "--help"), ("config", "--help")],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    forbidden = HEAVY if arguments[0] in ("--help", "--version", "plugins") else ("torch", "numpy", "av")
    assert heavy_imports(MAIN, forbidden=forbidden, arguments=arguments, env=environment()) == []


def test_help_loads_no_plugin(fake_dist: FakeDist) -> None:
    folder = fake_dist("acme", modules={"acme_plugin.py": ""}, plugins={"acme": "acme_plugin"})
    env = environment(folder)
    watched = ("acme_plugin", "pluggy", "attrs")
    assert heavy_imports(MAIN, forbidden=watched, arguments=["--help"], env=env) == []
    assert heavy_imports(MAIN, forbidden=watched, arguments=["plugins"], env=env) == [*watched]


def test_the_guard_sees_what_is_imported(fake_dist: FakeDist) -> None:
    env = environment(
        fake_dist(
            "acme",
            modules={
                "acme_pkg/__init__.py": "import acme_heavy",
                "acme_pkg/plugin.py": "",
                "acme_light.py": "def build():\n    import acme_heavy",
                "acme_heavy.py": "",
                "acme_wrong.py": "raise OSError('x')",
            },
            plugins={},
        )
    )
    assert_light_import("acme_light", forbidden=["acme_heavy"], env=env)
    with pytest.raises(
        AssertionError, match=r"import acme_pkg\.plugin imports acme_heavy; import it inside build"
    ):
        assert_light_import("acme_pkg.plugin", forbidden=["acme_heavy"], env=env)
    with pytest.raises(AssertionError, match="OSError: x"):
        assert_light_import("acme_wrong", env=env)
    pytest.importorskip("cattrs")
    with pytest.raises(AssertionError, match="imports cattrs"):
        assert_light_import("lightx2v_core.config.load")


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment())
    return time.perf_counter() - start


@pytest.mark.load
@pytest.mark.alone
@pytest.mark.slow
def test_help_and_plugins_cost_little_more_than_click() -> None:
    """Medians of interleaved runs, so that a busy machine slows all three; four retries for the rest."""
    commands = {
        "import click": ("-c", "import click"),
        "--help": ("-c", MAIN, "--help"),
        "plugins": ("-c", MAIN, "plugins"),
    }
    for attempt in range(5):
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(11):
            for name, command in commands.items():
                times[name].append(seconds(*command))
        click = median(times["import click"])
        ratios = {name: round(median(runs) / click, 2) for name, runs in times.items()}
        if max(ratios.values()) < 3 or attempt == 4:
            break
    assert max(ratios.values()) < 3, f"times of `import click` ({click * 1000:.0f} ms): {json.dumps(ratios)}"
    print(f"times of `import click` ({click * 1000:.0f} ms): {json.dumps(ratios)}")  # noqa: T201


def test_environment_keeps_no_switches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTX2V_PLUGINS", "wan21")
    monkeypatch.setenv("PYTHONPATH", "/before")
    env = environment(tmp_path, LIGHTX2V_DISABLE_PLUGINS="x")
    assert "LIGHTX2V_PLUGINS" not in env
    assert env["LIGHTX2V_DISABLE_PLUGINS"] == "x"
    assert env["PYTHONPATH"].startswith(str(tmp_path))
    assert env["PYTHONPATH"].endswith("/before")
