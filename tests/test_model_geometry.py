"""Sizes and lengths of every official model: the latent shapes of the legal ones, and the messages for the others."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lightx2v_core.api import (  # noqa: E402
    CheckpointFacts,
    Geometry,
    Header,
    Recognition,
    RequestError,
    Target,
    TensorInfo,
)
from lightx2v_core.testing.profiles import examples  # noqa: E402


def _models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_headers", Path(__file__).with_name("real_headers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REAL = _models()
CASES = [(name, task) for name, model in REAL.MODELS.items() for task in model.tasks]
few = settings(max_examples=examples(20), deadline=None)
sides, lengths = st.integers(1, 2000), st.integers(1, 200)


@cache
def recognized(name: str) -> tuple[Any, Recognition]:
    """The family that knows a model, and what it says of its network alone."""
    model = REAL.MODELS[name]
    module = pytest.importorskip(f"lightx2v_{model.plugin}.plugin", reason="needs the plugin of this model")
    shapes = REAL.network_tensors(name)
    header = Header(
        tensors={
            key: TensorInfo(name=key, shape=shape, dtype="float32", file=Path("model.safetensors"))
            for key, shape in shapes.items()
        }
    )
    facts = CheckpointFacts(
        folder=Path(name), config=REAL.config_of(name), headers=dict.fromkeys(model.networks, header)
    )
    for spec in module.lightx2v_models():
        if set(model.networks) <= {component.name for component in spec.components}:
            found = spec.recognize(facts)
            if isinstance(found, Recognition):
                return spec, found
    raise AssertionError(f"no family knows {name}")


def geometry(name: str, task: str, size: tuple[int, int], frames: int, **inputs: Any) -> Geometry:
    spec, recognition = recognized(name)
    found: Geometry = spec.geometry(
        recognition, Target(task=task, width=size[0], height=size[1], frames=frames, inputs=inputs)
    )
    return found


def grid(name: str) -> tuple[int, int]:
    """Pixels along a side to a latent, and channels of it."""
    return (16, 48) if name.endswith("5B") else (8, 16)


def least(task: str) -> int:
    return 5 if task == "flf2v" else 1


def check(shape: Geometry, name: str, task: str) -> None:
    stride, channels = grid(name)
    # Animate makes a segment at once, after a latent of the reference image
    latents = 21 if task == "animate" else (shape.frames + 3) // 4
    assert shape.latent_shape == (channels, latents, shape.height // stride, shape.width // stride)
    assert shape.width % (2 * stride) == shape.height % (2 * stride) == 0
    assert shape.tokens == latents * (shape.height // stride // 2) * (shape.width // stride // 2)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_legal_sizes_have_the_latents_of_the_formula(name: str, task: str) -> None:
    step = 2 * grid(name)[0]

    @few
    @given(st.integers(1, 130), st.integers(1, 130), st.integers(0, 60))
    def holds(columns: int, rows: int, quarter: int) -> None:
        size, frames = (columns * step, rows * step), max(4 * quarter + 1, least(task))
        shape = geometry(name, task, size, frames)
        assert (shape.width, shape.height, shape.frames) == (*size, frames)
        check(shape, name, task)

    recognized(name)
    holds()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_illegal_sizes_are_refused_with_the_nearest_legal_ones(name: str, task: str) -> None:
    step = 2 * grid(name)[0]

    @few
    @given(sides, sides, lengths)
    def holds(width: int, height: int, frames: int) -> None:
        wrong = {
            "width": width % step != 0,
            "height": height % step != 0,
            # the length of Animate is that of the pose video
            "frames": task != "animate" and (frames % 4 != 1 or frames < least(task)),
        }
        assume(any(wrong.values()))
        with pytest.raises(RequestError) as refused:
            geometry(name, task, (width, height), frames)
        said = {
            found[1]: [int(found[3]), *([int(found[4])] if found[4] else [])]
            for found in re.finditer(
                r"(width|height|frames) must be [^:]*: instead of (\d+) use (\d+)(?: or (\d+))?",
                str(refused.value),
            )
        }
        assert set(said) == {key for key, is_wrong in wrong.items() if is_wrong}
        for key, values in said.items():
            asked = {"width": width, "height": height, "frames": frames}[key]
            legal = range(least(task), 400, 4) if key == "frames" else range(step, 4000, step)
            distance = min(abs(value - asked) for value in legal)
            assert min(abs(value - asked) for value in values) == distance
        # every value that is named is legal, in any combination
        for which in (0, -1):
            use = {"width": width, "height": height, "frames": frames} | {
                key: values[which] for key, values in said.items()
            }
            check(geometry(name, task, (use["width"], use["height"]), use["frames"]), name, task)

    recognized(name)
    holds()


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if case[1] in ("i2v", "flf2v")])
def test_an_image_decides_the_aspect_within_the_area(name: str, task: str) -> None:
    torch = pytest.importorskip("torch")

    @few
    @given(st.integers(200, 1500), st.integers(200, 1500), st.integers(1, 20))
    def holds(width: int, height: int, quarter: int) -> None:
        image = torch.zeros(1).expand(3, height, width)
        inputs = {"image": image, **({"last_image": image} if task == "flf2v" else {})}
        shape = geometry(name, task, (832, 480), 4 * quarter + 1, **inputs)
        check(shape, name, task)
        assert shape.width * shape.height <= 832 * 480
        # each side is rounded down by less than a step
        step = 2 * grid(name)[0]
        exact = (832 * 480 * width / height) ** 0.5, (832 * 480 * height / width) ** 0.5
        for side, wanted in zip((shape.width, shape.height), exact, strict=True):
            assert wanted - 2 * step < side < wanted + 2 * step

    recognized(name)
    holds()
