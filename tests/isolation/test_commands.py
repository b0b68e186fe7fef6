"""Commands beside plugins that raise, answer and keep anything: each costs one line, and all others are there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightx2v_core.testing.dists import environment, write_dist

from .hostile import ANSWERED, HEAD, RAISED, function

HOOK = "from lightx2v_core.api import hookimpl\n" + HEAD + "\n\n@hookimpl"
#: plugin -> its module, the name of what it raises or "" when it is only wrong
BROKEN: dict[str, tuple[str, str]] = {
    **{
        f"import-{number}": (HEAD + function("odd", body) + "\nodd()\n", told)
        for number, (told, body) in enumerate(RAISED.values())
    },
    **{
        f"hook-{number}": (HOOK + function("lightx2v_schedulers", body, ""), told)
        for number, (told, body) in enumerate(RAISED.values())
    },
    **{
        f"answer-{number}": (HOOK + function("lightx2v_schedulers", body, ""), "")
        for number, body in enumerate(ANSWERED.values())
    },
}
SPECS = """
from lightx2v_core.api import AttentionSpec, CommandSpec, NoOptions, OffloaderSpec, SchedulerSpec, hookimpl
"""
GOOD = (
    SPECS
    + """

@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="fine", summary="x", build=print)]
"""
)
#: prints, closes streams and takes signals over while it is imported and asked
NOISY = (
    SPECS
    + """
import signal, sys
print("an import says")
signal.signal(signal.SIGINT, signal.SIG_IGN)


@hookimpl
def lightx2v_attention_backends():
    print("a hook says")
    sys.stdout.close()
    sys.stderr = None
    sys.stdout = open("/dev/null", "w")
    return [AttentionSpec(name="noisy", summary="x", build=print, unusable=noise)]


def noise(ctx):
    print("a check says")
    return ()
"""
)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with all of them, one that is noisy, and a good neighbour before and behind."""
    root = tmp_path_factory.mktemp("dists")
    sources = {
        "a-fine": GOOD,
        "zz-fine": GOOD,
        "noisy": NOISY,
        **{name: source for name, (source, _) in BROKEN.items()},
    }
    for name, source in sources.items():
        module = name.replace("-", "_") + "_plugin"
        write_dist(root / name, f"{name}-dist", modules={f"{module}.py": source}, plugins={name: module})
    return environment(*(root / name for name in sources))


def core(*arguments: str | Path, env: dict[str, str], status: int = 0) -> subprocess.CompletedProcess[str]:
    """``lightx2v-core`` in a process of its own, which ends with this status and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *map(str, arguments)],
        env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done


def test_each_costs_one_line_and_the_others_are_there(env: dict[str, str]) -> None:
    done = core("plugins", "--json", env=env)
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert all(found[name]["state"] == "loaded" for name in ("core", "a-fine", "zz-fine", "noisy"))
    for name, (_, told) in BROKEN.items():
        plugin = found[name]
        assert (name, plugin["state"], plugin["provides"]) == (name, "broken", [])
        assert told in plugin["reason"]
        assert len(plugin["reason"]) < 1200
        assert "\n" not in plugin["reason"]
    assert done.stderr == "an import says\na hook says\n"

    lines = core("plugins", env=env).stdout.splitlines()
    for name in BROKEN:
        assert len([line for line in lines if line.startswith(f"{name} is broken: ")]) == 1


def test_other_commands_beside_them(env: dict[str, str]) -> None:
    core("--help", env=env)
    report = json.loads(core("doctor", "--json", env=env, status=1).stdout)
    assert report["implementations"]["attention"]["a-fine/fine"] == []
    assert len(report["problems"]) >= len(BROKEN)
    assert all("\n" not in problem and len(problem) < 1300 for problem in report["problems"])
    shown = core("plugins", "show", "hook-2", env=env).stdout  # its traceback is what it is for
    assert "hook-2: hook-2-dist 1.0" in shown
    some = ",".join(["noisy", *BROKEN])
    done = core("plugins", "--disable-plugin", some, "--strict-plugins", env=env)
    assert "zz-fine" in done.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan2.1 checkpoint."""
    pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


#: a plugin whose functions do in their bodies what the environment says, each where it is named there
ACTING = (
    HEAD
    + """
import os
from attrs import evolve
from lightx2v_core.api import AttentionSpec, CommandSpec, ModelSpec, OffloaderSpec, SchedulerSpec, hookimpl
from lightx2v_core.builtin import plugin as builtin
from lightx2v_wan21 import plugin as wan
BODIES = BODIES_OF_TEST


def acting(place, plain):
    def act(*arguments, **named):
        if os.environ.get("EVIL_PLACE") != place:
            return plain(*arguments, **named)
        names = dict(globals())
        exec("def odd():\\n    " + BODIES[os.environ["EVIL_DOES"]].replace("\\n", "\\n    "), names)
        return names["odd"]()
    return act


@hookimpl
def lightx2v_models():
    plain = wan.lightx2v_models()[0]
    named = ("recognize", "defaults", "geometry", "memory", "stages", "sizes", "build", "repositories", "unusable")
    return [evolve(plain, name="evil", aliases={}, **{name: acting(name, getattr(plain, name)) for name in named})]


@hookimpl
def lightx2v_attention_backends():
    def build(options, ctx):
        raise AssertionError
    check = acting("odd", lambda ctx: ["no"])
    return [AttentionSpec(name="odd", summary="x", priority=10**6, unusable=check, build=build)]


@hookimpl
def lightx2v_offloaders():
    def forecast(options, ctx, loads):
        raise AssertionError
    return [OffloaderSpec(name="odd", summary="x", priority=10**6, forecast=acting("forecast", forecast), build=print)]


@hookimpl
def lightx2v_schedulers():
    def build(options, ctx):
        raise AssertionError
    def leaving(options, ctx):
        return Leaving(unipc.build(options, ctx))
    unipc = next(spec for spec in builtin.lightx2v_schedulers() if spec.name == "unipc")
    return [
        SchedulerSpec(name="odd", summary="x", build=acting("scheduler", build)),
        SchedulerSpec(name="leaving", summary="x", config=unipc.config, build=leaving),
    ]


class Leaving:
    def __init__(self, plain):
        self.plain = plain

    def __getattr__(self, name):
        return getattr(self.plain, name)

    def step(self, *given):
        raise SystemExit(0)


@hookimpl
def lightx2v_commands():
    return [CommandSpec(name="odd", summary="x", load=acting("load", print))]
"""
)


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("lightx2v_wan21", reason="its model is that of the Wan2.1 plugin, with faults")
    bodies = {**{what: body for what, (_, body) in RAISED.items()}, **ANSWERED}
    folder = write_dist(
        tmp_path_factory.mktemp("acting"),
        "evil-dist",
        modules={"evil_plugin.py": ACTING.replace("BODIES_OF_TEST", repr(bodies))},
        plugins={"evil": "evil_plugin"},
    )
    return environment(folder, LIGHTX2V_PLUGINS="evil,wan21")


REQUEST = ("--size", "32x32", "--frames", "5", "--steps", "2", "--device", "cpu", "--prompt", "a fox")


@pytest.mark.parametrize(
    ("place", "does"),
    [
        ("recognize", "a base exception"), ("recognize", "an object"), ("defaults", "no words"),
        ("geometry", "an exit with success"), ("geometry", "nothing"), ("memory", "a dict"), ("stages", "no end"),
        ("sizes", "an interruption of its own"), ("unusable", "no end of texts"),
    ],
)  # fmt: skip
def test_a_model_that_fails_in_a_plan(
    acting: dict[str, str], checkpoint: Path, place: str, does: str
) -> None:
    env = {**acting, "EVIL_PLACE": place, "EVIL_DOES": does}
    command = "run" if place == "geometry" else "plan"
    done = core(command, "--model", "evil", "--model-path", checkpoint, *REQUEST, env=env, status=2)
    assert len(done.stderr.splitlines()) <= 3
    assert done.stderr.startswith("error: ")
    assert f"{place} of model evil" in done.stderr or place in ("recognize", "unusable")
    if place in ("recognize", "unusable"):  # among several models it is skipped, with its reason
        done = core("plan", "--json", "--model-path", checkpoint, *REQUEST, env=env)
        assert "evil/evil" in json.loads(done.stdout)["plan"]["rejected_models"]
        core("inspect", checkpoint, env=env)


def test_what_auto_passes_over(acting: dict[str, str], checkpoint: Path) -> None:
    given = ("--model", "wan21/wan2.1", "--model-path", checkpoint, *REQUEST)
    for place, does in (("odd", "a base exception"), ("odd", "a list"), ("odd", "no end")):
        done = core(
            "plan", *given, "--attention", "auto", env={**acting, "EVIL_PLACE": place, "EVIL_DOES": does}
        )
        assert "its check failed" in " ".join(done.stdout.split())  # a plan is folded
    for does in ("no words", "nothing", "the end of a generator"):
        env = {**acting, "EVIL_PLACE": "forecast", "EVIL_DOES": does}
        said = core("plan", *given, "--offloader", "auto", env=env).stdout
        assert "forecast of offloader odd failed" in " ".join(said.split())
        done = core("plan", *given, "--offloader", "odd", env=env, status=2)
        assert done.stderr.startswith("error: plugin evil: forecast of offloader odd failed: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "does"),
    [
        ("build", "an exit with success"),
        ("build", "nothing"),
        ("scheduler", "an interruption of its own"),
        ("scheduler", "words without end"),
    ],
)
def test_what_fails_in_a_run(
    acting: dict[str, str], checkpoint: Path, place: str, does: str, tmp_path: Path
) -> None:
    scheduler = "odd" if place == "scheduler" else "unipc"
    given = ("--model", "evil", "--model-path", checkpoint, *REQUEST, "--scheduler", scheduler)
    env = {**acting, "EVIL_PLACE": place, "EVIL_DOES": does}
    done = core("run", *given, "--output", tmp_path / "x.mp4", env=env, status=1)
    assert done.stderr.splitlines()[-1].startswith("error: plugin evil: build of ")
    assert not list(tmp_path.iterdir())


def test_what_leaves_in_a_run(acting: dict[str, str], checkpoint: Path, tmp_path: Path) -> None:
    given = ("--model", "wan21/wan2.1", "--model-path", checkpoint, *REQUEST, "--scheduler", "leaving")
    done = core("run", *given, "--output", tmp_path / "x.mp4", env=acting, status=1)
    assert done.stderr.splitlines()[-1].startswith("error: the run failed: SystemExit")
    (tmp_path / "jobs.txt").write_text("a fox\na cat\n")
    given = (*given[: given.index("--prompt")], "--scheduler", "leaving")
    done = core(
        "run",
        *given,
        "--prompt-file",
        tmp_path / "jobs.txt",
        "--output",
        tmp_path / "o",
        env=acting,
        status=1,
    )
    assert "2 of 2 jobs failed" in done.stderr
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(
    "does", ["an exit with a text", "an interruption of its own", "a text with methods", "no name"]
)
def test_a_command_that_cannot_be_loaded(acting: dict[str, str], does: str) -> None:
    done = core("odd", env={**acting, "EVIL_PLACE": "load", "EVIL_DOES": does}, status=2)
    assert done.stderr.startswith("error: command 'odd' cannot be loaded: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("does", ["a base exception", "no end", "a list"])
def test_downloads_of_the_other_models_are_listed(acting: dict[str, str], does: str) -> None:
    pytest.importorskip("lightx2v_hub", reason="needs the plugin that brings `download`")
    env = {**acting, "EVIL_PLACE": "repositories", "EVIL_DOES": does}
    done = core("download", "--list", env=env)
    assert "wan2.1-t2v-1.3b" in done.stdout
    assert done.stderr.count("plugin evil: repositories of model evil failed") == done.stderr.count("\n") == 1


HELD = {
    "thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), name='forever').start()\n",
        "forever",
    ),
    "pool": (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1, 'pool-of-mine')\n"
        "pool.submit(time.sleep, 1e6)\n",
        "pool-of-mine_0",
    ),
    "atexit": ("import atexit, time\natexit.register(time.sleep, 1e6)\n", "time.sleep"),
}


@pytest.mark.load
@pytest.mark.parametrize("held", HELD)
def test_a_process_that_is_kept_alive_ends(held: str, tmp_path: Path) -> None:
    source, name = HELD[held]
    write_dist(
        tmp_path / "held",
        "held-dist",
        modules={"held_plugin.py": source + GOOD},
        plugins={"held": "held_plugin"},
    )
    env = environment(tmp_path / "held", LIGHTX2V_PLUGINS="held")
    done = core("plugins", "--json", env=env)
    assert {plugin["name"]: plugin["state"] for plugin in json.loads(done.stdout)}["held"] == "loaded"
    assert done.stderr.startswith("warning: ")
    assert done.stderr.count("\n") == 1
    assert name in done.stderr or held == "atexit"
    core("plugins", "show", "nothing", env=env, status=2)  # the status is that of the command


@pytest.mark.load
def test_a_process_that_is_not_kept_alive_ends_at_once(env: dict[str, str]) -> None:
    for _ in range(5):
        start = time.monotonic()
        core("--version", env=env)
        if time.monotonic() - start < 4:
            return
    pytest.fail("it waits for something at its end")
