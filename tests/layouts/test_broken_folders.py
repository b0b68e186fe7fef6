"""For any broken folder, ``inspect`` and ``plan`` end with a report or one message: no traceback, no hang, and no
silent choice."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightx2v_core.cli.show_inspection import inspection_text
from lightx2v_core.cli.show_plan import plan_text
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.errors import LightX2VError
from lightx2v_core.inspection.inspect import inspect
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.testing.profiles import examples

Numbers = tuple[int, int]
Mutation = Callable[[Path, Numbers], None]
#: layouts of the tiny checkpoint that are broken here
STARTS = ("official", "single_ordinary", "original", "diffusers", "comfyui")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def remove(folder: Path, numbers: Numbers) -> None:
    target(folder, numbers[0]).unlink()


def empty(folder: Path, numbers: Numbers) -> None:
    target(folder, numbers[0]).write_bytes(b"")


def truncate(folder: Path, numbers: Numbers) -> None:
    file = target(folder, numbers[0])
    content = file.read_bytes()
    file.write_bytes(content[: numbers[1] % max(len(content), 1)])


def duplicate(folder: Path, numbers: Numbers) -> None:
    file = target(folder, numbers[0])
    shutil.copy(file, file.with_name(f"copy_{file.name}"))


def elsewhere(folder: Path, numbers: Numbers) -> None:
    """A copy in one of the known places."""
    place = folder / ("fp8", "original", "distill_models", "transformer", "vae")[numbers[1] % 5]
    place.mkdir(exist_ok=True)
    file = target(folder, numbers[0])
    if place / file.name != file:
        shutil.copy(file, place / file.name)


def swap(folder: Path, numbers: Numbers) -> None:
    one, other = target(folder, numbers[0]), target(folder, numbers[1])
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def flip(folder: Path, numbers: Numbers) -> None:
    """A byte near the start, where the header is, or near the end, where a zip archive has its index."""
    file = target(folder, numbers[0])
    content = bytearray(file.read_bytes())
    if content:
        at = numbers[1] % min(len(content), 2000)
        content[at if numbers[1] % 2 else -1 - at] ^= 1 << numbers[1] % 8
        file.write_bytes(content)


def folder_instead(folder: Path, numbers: Numbers) -> None:
    file = target(folder, numbers[0])
    file.unlink()
    file.mkdir()


def rename(folder: Path, numbers: Numbers) -> None:
    file = target(folder, numbers[0])
    file.rename(file.with_name(("model", "block_0", "x-00001-of-00003", "ÿ")[numbers[1] % 4] + file.suffix))


def target(folder: Path, number: int) -> Path:
    found = files(folder)
    return found[number % len(found)] if found else folder / "nothing"


MUTATIONS: tuple[Mutation, ...] = (
    remove, empty, truncate, duplicate, elsewhere, swap, flip, folder_instead, rename,
)  # fmt: skip


class World:
    """The whole folders and the plugins; with a short repr, because hypothesis prints it."""

    def __init__(self, starts: dict[str, Path], plugins: PluginSet) -> None:
        self.starts, self.plugins = starts, plugins

    def __repr__(self) -> str:
        return "world"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, arrange_into: Callable[[Path, str], Path]) -> World:
    root = tmp_path_factory.mktemp("starts")
    return World({name: arrange_into(root / name, name) for name in STARTS}, load_plugins())


def plan_or_message(folder: Path, plugins: PluginSet) -> Plan | str:
    try:
        return resolve(load_config({"model_path": str(folder)}), plugins).plan
    except LightX2VError as exc:
        return str(exc)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from(STARTS),
    steps=st.lists(
        st.tuples(st.sampled_from(MUTATIONS), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))),
        min_size=1,
        max_size=3,
    ),
)
def test_any_damage_is_reported_or_harmless(
    world: World, start: str, steps: list[tuple[Mutation, Numbers]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(world.starts[start], Path(place) / "model"))
        for mutate, numbers in steps:
            if files(folder):
                mutate(folder, numbers)
        began = time.perf_counter()
        found = inspect(folder, world.plugins)
        assert inspection_text(found)
        plan = plan_or_message(folder, world.plugins)
        assert time.perf_counter() - began < 60
        if isinstance(plan, str):
            # the report says it too, or says that nothing can be run
            assert plan
            assert found.obstacles or found.problems
            return
        assert plan_text(plan)
        assert [run for run in found.runnable if run.variant == plan.variant]
        # every other copy of the network is named
        networks = [item for item in found.components if item.variants]
        dit = next(part for part in plan.components if part.name == "dit")
        assert len(networks) <= 1 + len(dit.passed_over)


@pytest.mark.parametrize("name", STARTS)
def test_the_start_is_whole(world: World, name: str) -> None:
    found = inspect(world.starts[name], world.plugins)
    assert (found.problems, found.obstacles) == ((), ())
    assert isinstance(plan_or_message(world.starts[name], world.plugins), Plan)
