"""A stranger's distribution, written here, brings an attention backend, a scheduler and a command. They are used by
name in real runs, while every kind of bad neighbour is installed as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_core.testing import environment, write_dist

pytest.importorskip("lightx2v_wan21")

ACME = """
from attrs import frozen

from lightx2v_core.api import AttentionSpec, CommandSpec, NoOptions, SchedulerSpec, hookimpl


@frozen(kw_only=True)
class Options:
    mark: str = ""


def _attention(options, ctx):
    from acme_kernels import Attention

    return Attention(options.mark)


def _euler(options, ctx):
    from acme_kernels import Euler

    return Euler(options.mark, ctx.steps, ctx.shift)


def _hello():
    from acme_kernels import hello

    return hello


@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="acme", summary="attention of Acme", config=Options, build=_attention)]


@hookimpl
def lightx2v_schedulers():
    return [SchedulerSpec(name="acme-euler", summary="Euler of Acme", config=Options, build=_euler)]


@hookimpl
def lightx2v_commands():
    return [CommandSpec(name="acme-hello", summary="Greet.", load=_hello)]
"""

KERNELS = """
from pathlib import Path

import click
import torch

from lightx2v_core.api import Attention as Protocol


def note(mark, text):
    with Path(mark).open("a") as file:
        file.write(text + chr(10))


class Attention:
    def __init__(self, mark):
        self.mark = mark

    def __call__(self, q_BLHD, k_BSHD, v_BSHD, *, scale=None):
        note(self.mark, f"attention {q_BLHD.shape[1]}")
        q, k, v = (x.transpose(1, 2) for x in (q_BLHD, k_BSHD, v_BSHD))
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return ((q @ k.transpose(2, 3) * scale).softmax(-1) @ v).transpose(1, 2)


class Euler:
    def __init__(self, mark, steps, shift):
        plain = [1 - i / steps for i in range(steps + 1)]
        self.mark = mark
        self.sigmas = [shift * s / (1 + (shift - 1) * s) for s in plain]
        self.timesteps = [1000 * s for s in self.sigmas[:-1]]

    def step(self, prediction, index, latents):
        note(self.mark, f"step {index}")
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * prediction.float()


@click.command()
@click.argument("name")
def hello(name):
    click.echo(f"hello {name}")
"""

CLASH = """
from lightx2v_core.api import AttentionSpec, OffloaderSpec, SchedulerSpec, hookimpl


def _build(options, ctx):
    raise AssertionError("nobody asked for this one")


@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="sdpa", summary="takes the core's name", build=_build)]


@hookimpl
def lightx2v_offloaders():
    return [OffloaderSpec(name="none", summary="takes the name of a default", build=_build)]


@hookimpl
def lightx2v_schedulers():
    return [SchedulerSpec(name="unipc", summary="takes the name of a default", build=_build)]
"""

TYPO = "from lightx2v_core.api import hookimpl\n\n@hookimpl\ndef lightx2v_sheduler():\n    return []\n"

#: plugin -> (source, Requires-Dist, state, part of its reason)
NEIGHBOURS = {
    "bad-broken": ("import a_library_nobody_has", "lightx2v-core", "broken", "a_library_nobody_has"),
    "bad-clash": (CLASH, "lightx2v-core", "loaded", ""),
    "bad-exit": ("raise SystemExit(7)", "lightx2v-core", "broken", "SystemExit: 7"),
    "bad-old": (
        "raise AssertionError",
        "lightx2v-core>=99",
        "incompatible",
        "needs lightx2v-core>=99, found",
    ),
    "bad-typo": (TYPO, "lightx2v-core", "broken", "did you mean 'lightx2v_schedulers'?"),
}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the stranger's distribution and its bad neighbours."""
    root = tmp_path_factory.mktemp("dists")
    folders = [
        write_dist(
            root / "acme",
            "lightx2v-acme",
            modules={"acme_plugin.py": ACME, "acme_kernels.py": KERNELS},
            plugins={"acme": "acme_plugin"},
            version="4.2",
        )
    ]
    for name, (source, requires, _, _) in NEIGHBOURS.items():
        module = name.replace("-", "_")
        folders.append(
            write_dist(
                root / name,
                name,
                modules={f"{module}.py": source},
                plugins={name: module},
                requires=[requires],
            )
        )
    return environment(*folders)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan2.1 checkpoint."""
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


def core(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``lightx2v-core`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *map(str, arguments)],
        env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def generate(
    checkpoint: Path, output: Path, *more: str, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return core(
        "run", "--model-path", checkpoint, "--prompt", "a red fox", "--size", "32x32", "--frames", "5",
        "--steps", "2", "--device", "cpu", "--output", output, *more, env=env,
    )  # fmt: skip


def test_everyone_is_listed_with_a_state(env: dict[str, str]) -> None:
    done = core("plugins", "--json", env=env)
    assert done.returncode == 0, done.stderr
    listed = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    for name, (_, _, state, reason) in NEIGHBOURS.items():
        assert listed[name]["state"] == state
        assert reason in listed[name]["reason"]
        assert bool(listed[name]["reason"]) == (state != "loaded")
    acme = listed["acme"]
    assert (acme["state"], acme["distribution"], acme["version"]) == ("loaded", "lightx2v-acme", "4.2")
    assert [(item["kind"], item["name"]) for item in acme["provides"]] == [
        ("attention", "acme"),
        ("scheduler", "acme-euler"),
        ("command", "acme-hello"),
    ]
    owners = [n for n, p in listed.items() if ("attention", "sdpa") in [(i["kind"], i["name"]) for i in
              p["provides"]]]  # fmt: skip
    assert owners == ["core", "bad-clash"]


@pytest.mark.slow
def test_a_run_uses_it_by_name(env: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    mark, output = tmp_path / "called", tmp_path / "o.mp4"
    options = json.dumps({"use": "acme", "options": {"acme": {"mark": str(mark)}}})
    scheduler = json.dumps({"use": "acme-euler", "options": {"acme-euler": {"mark": str(mark)}}})
    done = generate(
        checkpoint, output, "--set", f"attention={options}", "--set", f"scheduler={scheduler}", env=env
    )
    assert done.returncode == 0, done.stderr
    assert output.read_bytes()[4:8] == b"ftyp"

    # 2 steps of 2 guidance passes through 2 blocks, each with self and cross attention
    calls = mark.read_text().split("\n")[:-1]
    assert calls.count("attention 8") == 16
    # before that, it proved itself once, though the command and the pipeline ask for it
    assert len([call for call in calls if call.startswith("attention")]) == 16 + 3
    assert [call for call in calls if call.startswith("step")] == ["step 0", "step 1"]

    record = json.loads(output.with_suffix(".json").read_text())
    assert record["choices"]["attention"]["use"] == "acme/acme"
    assert record["choices"]["scheduler"]["use"] == "acme/acme-euler"
    assert record["versions"]["lightx2v-acme"] == "4.2"
    assert set(record["versions"]) & set(NEIGHBOURS) == {"bad-clash"}

    lines = done.stderr.splitlines()
    for name, (_, _, state, reason) in NEIGHBOURS.items():
        about = [line for line in lines if name in line]
        assert len(about) == (state != "loaded"), about
        assert all(line.startswith(f"warning: plugin {name} ") and reason in line for line in about)


@pytest.mark.slow
def test_options_name_it_too(env: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    marks = [tmp_path / "attention", tmp_path / "scheduler"]
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "attention": {"use": ["acme"], "options": {"acme": {"mark": str(marks[0])}}},
                "scheduler": {
                    "use": ["acme/acme-euler"],
                    "options": {"acme/acme-euler": {"mark": str(marks[1])}},
                },
            }
        )
    )
    output = tmp_path / "o.png"
    done = core(
        "run", config, "--model-path", checkpoint, "--prompt", "x", "--size", "32x32", "--frames", "1",
        "--steps", "1", "--device", "cpu", "--output", output, "--quiet", "--disable-plugin",
        "bad-broken,bad-exit,bad-typo,bad-old", env=env,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    assert output.is_file()
    assert all(mark.is_file() for mark in marks)


def test_a_contested_name_must_be_qualified(env: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    done = generate(checkpoint, tmp_path / "o.mp4", "--attention", "sdpa", "--dry-run", env=env)
    assert done.returncode == 2
    assert "use core/sdpa or bad-clash/sdpa" in done.stderr
    done = generate(checkpoint, tmp_path / "o.mp4", "--attention", "core/sdpa", "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    assert "core/unipc" in done.stdout
    assert "core/none" in done.stdout


def test_a_name_that_did_not_load_is_explained(env: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    done = generate(checkpoint, tmp_path / "o.mp4", "--scheduler", "acme-eulr", "--dry-run", env=env)
    assert done.returncode == 2
    assert "did you mean 'acme-euler'?" in done.stderr
    for name, (_, _, state, reason) in NEIGHBOURS.items():
        if state != "loaded":
            assert f"not loaded: {name} ({state}: " in done.stderr
            assert reason in done.stderr


def test_strict_refuses_to_run(env: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    done = generate(checkpoint, tmp_path / "o.mp4", "--strict-plugins", env=env)
    assert done.returncode == 2
    assert not (tmp_path / "o.mp4").exists()
    assert [name for name in NEIGHBOURS if f"plugin {name} " in done.stderr] == [
        name for name, (_, _, state, _) in NEIGHBOURS.items() if state != "loaded"
    ]


def test_its_command_runs(env: dict[str, str]) -> None:
    done = core("acme-hello", "world", env=env)
    assert (done.returncode, done.stdout) == (0, "hello world\n")
    # click looks a command up twice; the plugins are loaded, and complained about, once
    assert len(done.stderr.splitlines()) == sum(state != "loaded" for _, _, state, _ in NEIGHBOURS.values())
    assert core("acme-hello", env=env).returncode == 2
    assert core("acme-helo", env=env).returncode == 2
