"""Changing the resolution while denoising: the plan's stages, and runs against independently computed formulas."""

import json
import subprocess
import sys

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from lightx2v_core import load
from lightx2v_core.api import Geometry, Recognition, Request, RequestError
from lightx2v_core.testing.profiles import examples
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.stages import changing_stages
from lightx2v_wan21.tiny import write_tiny

PROMPT, SEED, SHIFT = "a red fox", 7, 5.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("stages")
    for task in ("t2v", "i2v"):
        write_tiny(root / task, 0, task)
    Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 40).convert("RGB").save(root / "image.png")
    return root


def options(rates, steps=()):
    said = {"changing_resolution_rates": list(rates), "changing_resolution_steps": list(steps)}
    return {"model": {"use": ["wan2.1"], "options": {"wan2.1": said}}}


def level(position, steps, shift):
    """The noise level before a step of the linear Euler grid."""
    u = 1 - position / steps
    return shift * u / (1 + (shift - 1) * u)


def spread(old, new):
    """Linear interpolation along an axis as a matrix [new, old]: pixel centres, edges held."""
    matrix = torch.zeros(new, old)
    for row in range(new):
        place = max((row + 0.5) * old / new - 0.5, 0.0)
        left = min(int(place), old - 1)
        right = min(left + 1, old - 1)
        matrix[row, left] += 1 - (place - left)
        matrix[row, right] += place - left
    return matrix


def by_hand(pipeline, inputs, rates, ends, steps, scale):
    """Compute the latents of a run with the model's networks, without the denoising loop."""
    model, request = pipeline._model, pipeline.resolve(prompt=PROMPT, seed=SEED, **inputs).plan.request
    assert request.steps == steps
    rows, columns = request.height // 8, request.width // 8
    sides = [(int(rows * rate) // 2 * 2, int(columns * rate) // 2 * 2) for rate in rates] + [(rows, columns)]
    generator = torch.Generator().manual_seed(SEED)
    frames = (request.frames - 1) // 4 + 1
    noise = [torch.randn(16, frames, *side, generator=generator) for side in sides]
    x, stage = noise[0], 0
    for index in range(steps):
        there = evolve(request, height=8 * sides[stage][0], width=8 * sides[stage][1])
        with torch.inference_mode():
            found = model.encode(there, inputs, guided=True, emit=lambda event: None)
        sigma, after = (level(index + more, steps, SHIFT + stage) for more in (0, 1))
        step = StepLike(index, steps, 1000 * sigma, sigma)
        with torch.inference_mode():
            (cond,) = model.predict(x, step, [found.positive], found.shared)
            (uncond,) = model.predict(x, step, [found.negative], found.shared)
        v = uncond + scale * (cond - uncond)
        if stage < len(ends) and index + 1 == ends[stage]:
            (a, b), (c, d) = sides[stage], sides[stage + 1]
            clean = torch.einsum("ctab,ya,xb->ctyx", x - sigma * v, spread(a, c), spread(b, d))
            stage += 1
            x = (1 - sigma) * clean + sigma * noise[stage]
        else:
            x = x + (after - sigma) * v
    return x


class StepLike:
    def __init__(self, index, count, timestep, sigma):
        self.index, self.count, self.timestep, self.sigma = index, count, timestep, sigma


@pytest.mark.parametrize("task", ["t2v", "i2v"])
@pytest.mark.parametrize(
    ("rates", "said", "ends"),
    [((), (), ()), ((0.75,), (), (2,)), ((1.0, 0.5), (1, 3), (1, 3))],
    ids=["off", "half of the steps", "down and up"],
)
def test_a_run_equals_the_formulas(task, rates, said, ends, folders):
    inputs = {"image": str(folders / "image.png")} if task == "i2v" else {}
    pipeline = load(
        folders / task, config=options(rates, said), scheduler="euler", steps=5, frames=5, size=(96, 64),
        shift=SHIFT, guide_scale=3.0, dtype="float32",
    )  # fmt: skip
    seen = []
    video = pipeline.generate(prompt=PROMPT, seed=SEED, on_event=seen.append, **inputs)
    assert video.frames.shape == (3, 5, 64, 96)
    expected = by_hand(pipeline, inputs, rates, ends, 5, 3.0)
    torch.testing.assert_close(video.latents, expected, atol=2e-4, rtol=1e-4)
    assert [event.index for event in seen if event.kind == "step"] == list(range(5))
    assert [stage["start"] for stage in video.record["stages"]] == [0, *ends]


def test_the_multistep_solver_begins_anew_at_a_change(folders):
    """With unipc, and a change to the same size: the first steps, the change, and a solver without history."""
    from lightx2v_core.builtin.schedulers.unipc import FlowUniPC

    pipeline = load(
        folders / "t2v",
        config=options([1.0], [3]),
        steps=6,
        frames=5,
        size=(64, 64),
        shift=SHIFT,
        guide_scale=1,
    )
    video = pipeline.generate(prompt=PROMPT, seed=SEED)
    model, request = pipeline._model, pipeline.resolve(prompt=PROMPT, seed=SEED).plan.request
    generator = torch.Generator().manual_seed(SEED)
    first, second = (torch.randn(16, 2, 8, 8, generator=generator) for _ in range(2))
    with torch.inference_mode():
        found = model.encode(request, {}, guided=False, emit=lambda event: None)

        def flow(x, solver, index):
            step = StepLike(index, 6, solver.timesteps[index], solver.sigmas[index])
            return model.predict(x, step, [found.positive], found.shared)[0]

        before, x = FlowUniPC(6, SHIFT), first
        for index in range(2):
            x = before.step(flow(x, before, index), index, x)
        sigma = before.sigmas[2]
        x = (1 - sigma) * (x - sigma * flow(x, before, 2)) + sigma * second
        after = FlowUniPC(6, SHIFT + 1, start=3)
        assert after.timesteps == FlowUniPC(6, SHIFT + 1).timesteps[3:]
        for index in range(3):
            x = after.step(flow(x, after, index), index, x)
    torch.testing.assert_close(video.latents, x, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_the_command_line_changes_the_resolution(task, folders, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(options([1.0, 0.75], [1, 2])), encoding="utf-8")
    inputs = ["--image", folders / "image.png"] if task == "i2v" else []
    line = [
        sys.executable, "-m", "lightx2v_core", "run", tmp_path / "config.json", "--model-path", folders / task,
        "--prompt", PROMPT, "--size", "96x64", "--frames", "5", "--steps", "4", *inputs,
    ]  # fmt: skip
    said = subprocess.run([*map(str, line), "--dry-run"], capture_output=True, text=True, check=True).stdout
    assert [row.split(maxsplit=1)[1] for row in said.splitlines() if row.startswith("  stage ")] == [
        "96x64, 48 tokens, shift 5: step 1" if task == "t2v" else "96x64, 48 tokens, shift 3: step 1",
        "64x48, 24 tokens, shift 6: step 2" if task == "t2v" else "64x48, 24 tokens, shift 4: step 2",
        "96x64, 48 tokens, shift 7: steps 3 to 4"
        if task == "t2v"
        else "96x64, 48 tokens, shift 5: steps 3 to 4",
    ]
    more = ["--output", tmp_path / "out.mp4", "--dump-tensors", tmp_path / "dump.safetensors"]
    done = subprocess.run([*map(str, [*line, *more])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "dump.safetensors")["video"].shape == (3, 5, 64, 96)
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [stage["latent_shape"] for stage in record["stages"]] == [
        [16, 2, 8, 12],
        [16, 2, 6, 8],
        [16, 2, 8, 12],
    ]


# ---------------------------------------------------------------------------------------------- plans


def recognition():
    return Recognition(
        variant="wan2.1-t2v-x",
        summary="",
        tasks=("t2v",),
        components=(),
        architecture={},
        expected={},
        head_dim=8,
    )


def request(steps, task="t2v", shift=5.0):
    return Request(
        task=task, prompt="", negative_prompt="", width=8, height=8, frames=5, fps=16, steps=steps, shift=shift,
        guide_scale=(1.0,), scheduler="euler", seed=0,
    )  # fmt: skip


def geometry(rows, columns):
    return Geometry(
        latent_shape=(16, 2, 2 * rows, 2 * columns), tokens=2 * rows * columns,
        width=16 * columns, height=16 * rows, frames=5,
    )  # fmt: skip


def stages(rates, steps, total, shape, task="t2v"):
    Wan21Options(changing_resolution_rates=tuple(rates), changing_resolution_steps=tuple(steps))
    return changing_stages(recognition(), request(total, task), shape, rates, steps, (2, 2))


halves = st.integers(1, 80)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_every_legal_change_is_a_way_to_the_video(data):
    total = data.draw(st.integers(1, 60), "steps")
    count = data.draw(st.integers(0, min(4, total - 1)), "changes")
    ends = sorted(
        data.draw(st.sets(st.integers(1, max(total - 1, 1)), min_size=count, max_size=count), "ends")
    )
    shape = geometry(data.draw(halves), data.draw(halves))
    rows, columns = shape.latent_shape[2:]
    least = max(2 / rows, 2 / columns)
    rates = [data.draw(st.floats(least, 1.0)) for _ in ends]
    rates = [rate for rate in rates if int(rows * rate) >= 2 and int(columns * rate) >= 2]
    ends = ends[: len(rates)]
    found = stages(rates, ends, total, shape)
    assert [stage.start for stage in found] == [0, *ends]
    assert [stage.shift for stage in found] == [5.0 + number for number in range(len(found))]
    assert found[-1].geometry == shape
    for stage, rate in zip(found, rates, strict=False):
        latent = (int(rows * rate) // 2 * 2, int(columns * rate) // 2 * 2)
        assert stage.geometry.latent_shape == (16, 2, *latent)
        assert (stage.geometry.height, stage.geometry.width) == (8 * latent[0], 8 * latent[1])
        assert stage.geometry.tokens == 2 * latent[0] * latent[1] // 4
        assert stage.geometry.tokens <= shape.tokens


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(1, 20), st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True))
def test_steps_beyond_the_end_are_refused_with_the_nearest(total, ends):
    ends = sorted(ends)
    rates = [0.5] * len(ends)
    shape = geometry(8, 8)
    if ends[-1] < total:
        assert len(stages(rates, ends, total, shape)) == len(ends) + 1
        return
    with pytest.raises(RequestError) as refused:
        stages(rates, ends, total, shape)
    if len(ends) >= total:
        assert f"need {len(ends) + 1} steps or more, not {total}" in str(refused.value)
        return
    nearest = json.loads(str(refused.value).rpartition(" use ")[2])
    assert all(new <= old for new, old in zip(nearest, ends, strict=True))
    assert len(stages(rates, nearest, total, shape)) == len(ends) + 1
    assert nearest[-1] == total - 1


@settings(max_examples=examples(200), deadline=None)
@given(halves, halves, st.floats(0.001, 1.0))
def test_rates_that_leave_nothing_are_refused_with_the_least(rows, columns, rate):
    shape = geometry(rows, columns)
    if int(2 * rows * rate) >= 2 and int(2 * columns * rate) >= 2:
        assert len(stages([rate], [], 10, shape)) == 2
        return
    with pytest.raises(RequestError, match="leaves nothing of latents") as refused:
        stages([rate], [], 10, shape)
    least = float(str(refused.value).rpartition(" use ")[2].split()[0])
    assert least > rate
    assert len(stages([least], [], 10, shape)) == 2


def test_one_rate_lasts_for_half_of_the_steps():
    assert [stage.start for stage in stages([0.75], [], 9, geometry(4, 4))] == [0, 4]
    with pytest.raises(RequestError, match="one change of the resolution need"):
        stages([0.75], [], 1, geometry(4, 4))


@pytest.mark.parametrize("task", ["flf2v", "vace"])
def test_other_tasks_keep_their_size(task):
    with pytest.raises(RequestError, match=f"for t2v and i2v, not for {task}"):
        stages([0.75], [], 9, geometry(4, 4), task)
    assert len(stages([], [], 9, geometry(4, 4), task)) == 1


@pytest.mark.parametrize(
    ("rates", "steps", "message"),
    [
        ([], [3], "needs 'changing_resolution_rates'"),
        ([0.5, 0.75], [], "last step of each of 2 rates"),
        ([0.5], [3, 4], "last step of each of 1 rates"),
        ([0.5, 0.75], [4, 4], "must rise"),
        ([0.5, 0.75], [4, 3], "must rise"),
        ([0.5], [0], "must rise from 1"),
        ([0.0], [2], "above 0 and at most 1: 0.0"),
        ([1.25], [2], "above 0 and at most 1: 1.25"),
        ([float("nan")], [2], "above 0 and at most 1: nan"),
    ],
)
def test_impossible_options_are_refused(rates, steps, message):
    with pytest.raises(ValueError, match=message):
        Wan21Options(changing_resolution_rates=tuple(rates), changing_resolution_steps=tuple(steps))


def test_a_request_may_have_too_few_steps_for_a_loaded_pipeline(folders):
    pipeline = load(folders / "t2v", config=options([0.5], [4]), steps=6, frames=5, size=(64, 64))
    with pytest.raises(RequestError, match=r"below the 3 steps: instead of \[4\] use \[2\]"):
        pipeline.resolve(prompt=PROMPT, steps=3)
