"""The flow-matching schedulers against reference trajectories, exact solutions and their own contract."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lightx2v_core.builtin.schedulers.dpmpp import FlowDPMSolverPP
from lightx2v_core.builtin.schedulers.euler import FlowEuler
from lightx2v_core.builtin.schedulers.grids import log_snr, shifted
from lightx2v_core.builtin.schedulers.unipc import FlowUniPC
from lightx2v_core.testing.profiles import examples

Golden = Callable[[str], Path]
Make = Callable[[int, float], Any]


def euler_on_unipc_grid(steps: int, shift: float, start: int = 0) -> FlowEuler:
    return FlowEuler(steps, shift, grid="unipc", start=start)


CASES: dict[str, Make] = {"sched_unipc": FlowUniPC, "sched_dpmpp": FlowDPMSolverPP, "sched_euler": FlowEuler}
SCHEDULERS: list[Make] = [FlowUniPC, FlowDPMSolverPP, FlowEuler, euler_on_unipc_grid]
SHAPE = (1, 4, 2, 3, 5)

every_scheduler = pytest.mark.parametrize("make", SCHEDULERS)
few_examples = settings(max_examples=examples(40), deadline=None)
any_steps = st.integers(1, 60)
any_shift = st.floats(0.5, 20)


def read_case(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors = load_file(folder / "inputs.safetensors") | load_file(folder / "outputs.safetensors")
    return json.loads((folder / "case.json").read_text()), tensors


def randn(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def walk(scheduler: Any, latents: torch.Tensor, predictions: Any) -> Iterator[torch.Tensor]:
    for index, prediction in zip(range(len(scheduler.timesteps)), predictions, strict=True):
        latents = scheduler.step(prediction, index, latents)
        yield latents


@pytest.mark.parametrize("name", CASES)
def test_grids_match_the_reference(name: str, golden: Golden) -> None:
    case, tensors = read_case(golden(name))
    tolerance = case["tolerance"]
    for steps, shift in case["grids"]:
        scheduler = CASES[name](steps, shift)
        sigmas = torch.tensor(scheduler.sigmas, dtype=torch.float64)
        expected = tensors[f"s{steps}_shift{shift}.sigmas"].double()
        torch.testing.assert_close(sigmas, expected, rtol=0, **tolerance["sigmas"])

        timesteps = tensors[f"s{steps}_shift{shift}.timesteps"][:steps].tolist()
        if tolerance["timesteps"] == "exact":
            assert list(scheduler.timesteps) == timesteps
            assert all(type(timestep) is int for timestep in scheduler.timesteps)
        else:
            assert scheduler.timesteps == pytest.approx(timesteps, rel=0, abs=tolerance["timesteps"]["atol"])


@pytest.mark.parametrize(
    ("name", "prefix", "make"),
    [
        ("sched_unipc", "traj", FlowUniPC),
        ("sched_dpmpp", "traj", FlowDPMSolverPP),
        ("sched_euler", "traj", FlowEuler),
        ("sched_euler", "unipcgrid", euler_on_unipc_grid),
    ],
)
def test_trajectories_match_the_reference(name: str, prefix: str, make: Make, golden: Golden) -> None:
    case, tensors = read_case(golden(name))
    for steps, shift in case["trajectories"]:
        run = f"{prefix}_s{steps}_shift{shift}"
        samples = walk(make(steps, shift), tensors[f"{run}.noise"], tensors[f"{run}.model_output"])
        for got, expected in zip(samples, tensors[f"{run}.samples"], strict=True):
            torch.testing.assert_close(got, expected, **case["tolerance"]["samples"])


@every_scheduler
@few_examples
@given(steps=any_steps, shift=any_shift)
def test_grid_descends_to_zero(make: Make, steps: int, shift: float) -> None:
    scheduler = make(steps, shift)
    assert len(scheduler.timesteps) == steps
    assert len(scheduler.sigmas) == steps + 1
    assert scheduler.sigmas[-1] == 0
    assert scheduler.sigmas[0] <= 1
    assert all(later < earlier for earlier, later in pairwise(scheduler.sigmas))
    assert all(later <= earlier for earlier, later in pairwise(scheduler.timesteps))
    pairs = zip(scheduler.timesteps, scheduler.sigmas, strict=False)
    assert all(sigma * 1000 - 1 < timestep <= sigma * 1000 for timestep, sigma in pairs)


@every_scheduler
@few_examples
@given(steps=any_steps, shift=any_shift)
def test_straight_field_lands_on_the_clean_sample(make: Make, steps: int, shift: float) -> None:
    scheduler = make(steps, shift)
    clean, noise = randn(0), randn(1)
    start = torch.lerp(clean, noise, scheduler.sigmas[0])
    samples = list(walk(scheduler, start, [noise - clean] * steps))
    for sample, sigma in zip(samples, scheduler.sigmas[1:], strict=True):
        torch.testing.assert_close(sample, torch.lerp(clean, noise, sigma), atol=1e-4, rtol=1e-4)


@every_scheduler
@few_examples
@given(steps=any_steps, shift=any_shift)
def test_arbitrary_predictions_stay_finite(make: Make, steps: int, shift: float) -> None:
    predictions = [randn(2 + index) for index in range(steps)]
    assert all(bool(sample.isfinite().all()) for sample in walk(make(steps, shift), randn(0), predictions))


@pytest.mark.parametrize(("make", "order"), [(FlowEuler, 1), (FlowDPMSolverPP, 2), (FlowUniPC, 2)])
def test_error_falls_with_the_order_of_the_solver(make: Make, order: int) -> None:
    """Data of standard deviation 2: the velocity is linear in the sample and the flow is known exactly."""

    def spread(sigma: float) -> float:
        return math.hypot((1 - sigma) * 2, sigma)

    def error(steps: int) -> float:
        scheduler = make(steps, 3.0)
        sample = torch.full(SHAPE, spread(scheduler.sigmas[0]), dtype=torch.float64)
        for index, sigma in enumerate(scheduler.sigmas[:-2]):
            slope = (sigma - 4 * (1 - sigma)) / spread(sigma) ** 2
            sample = scheduler.step(sample * slope, index, sample)
        return abs(float(sample.flatten()[0]) - spread(scheduler.sigmas[-2]))

    assert error(80) < error(40) * 0.6**order


@every_scheduler
def test_steps_are_taken_in_order(make: Make) -> None:
    scheduler = make(2, 5.0)
    latents = randn(0)
    with pytest.raises(ValueError, match=r"expected index 0, got index 1"):
        scheduler.step(latents, 1, latents)
    latents = scheduler.step(latents, 0, latents)
    with pytest.raises(ValueError, match=rf"{type(scheduler).__name__}.step: expected index 1, got index 0"):
        scheduler.step(latents, 0, latents)
    latents = scheduler.step(latents, 1, latents)
    with pytest.raises(ValueError, match=r"all 2 steps are done, got index 2"):
        scheduler.step(latents, 2, latents)


@every_scheduler
def test_impossible_grids_are_rejected(make: Make) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        make(0, 5.0)
    for shift in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="shift must be a positive number"):
            make(4, shift)
    with pytest.raises(ValueError, match="too extreme for 4 steps"):
        make(4, 1e20)


def test_unknown_euler_grid_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"unknown grid 'karras', choose from \['linear', 'unipc'\]"):
        FlowEuler(4, 5.0, grid="karras")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [FlowUniPC, euler_on_unipc_grid])
def test_repeated_timesteps_run_through(make: Make) -> None:
    scheduler = make(100, 16.0)
    assert scheduler.timesteps[:2] == (999, 999)
    samples = list(walk(scheduler, randn(0), [randn(1)] * 100))
    assert len(samples) == 100
    assert bool(samples[-1].isfinite().all())


@every_scheduler
def test_history_does_not_alias_the_callers_tensors(make: Make) -> None:
    noise, predictions = randn(0), [randn(1 + index) for index in range(6)]
    expected = list(walk(make(6, 3.0), noise.clone(), predictions))
    assert torch.equal(noise, randn(0))
    assert all(torch.equal(prediction, randn(1 + index)) for index, prediction in enumerate(predictions))

    scheduler, buffer, shared = make(6, 3.0), noise.clone(), torch.empty(SHAPE)
    for index, prediction in enumerate(predictions):
        shared.copy_(prediction)
        buffer.copy_(scheduler.step(shared, index, buffer))
        assert torch.equal(buffer, expected[index])


@every_scheduler
def test_half_precision_predictions_are_added_in_float32(make: Make) -> None:
    predictions = [randn(1 + index).bfloat16() for index in range(5)]
    got = list(walk(make(5, 5.0), randn(0), predictions))
    expected = list(walk(make(5, 5.0), randn(0), [prediction.float() for prediction in predictions]))
    assert all(sample.dtype == torch.float32 for sample in got)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_shift_keeps_both_ends() -> None:
    assert (shifted(0.0, 5.0), shifted(0.5, 5.0), shifted(1.0, 5.0)) == (0.0, 2.5 / 3, 1.0)
    assert (log_snr(1.0), log_snr(0.5), log_snr(0.0)) == (-math.inf, 0.0, math.inf)


def test_unipc_starts_at_float32_0_999() -> None:
    """0.999 in float64 would truncate to 665 and 332."""
    assert FlowUniPC(3, 1.0).timesteps == (999, 666, 333)


@every_scheduler
@few_examples
@given(steps=st.integers(2, 40), shift=any_shift, data=st.data())
def test_a_late_start_is_the_rest_of_the_schedule_without_a_history(
    make: Any, steps: int, shift: float, data: st.DataObject
) -> None:
    start = data.draw(st.integers(1, steps - 1))
    whole, late = make(steps, shift), make(steps, shift, start=start)
    assert late.timesteps == whole.timesteps[start:]
    assert late.sigmas == whole.sigmas[start:]
    # the first step knows nothing from before: it is Euler's
    latents, velocity = randn(1), randn(2)
    expected = latents + (late.sigmas[1] - late.sigmas[0]) * velocity
    torch.testing.assert_close(late.step(velocity, 0, latents), expected, atol=1e-4, rtol=1e-4)


@every_scheduler
@pytest.mark.parametrize("start", [-1, 4, 5])
def test_a_start_that_leaves_no_step_is_refused(make: Any, start: int) -> None:
    with pytest.raises(ValueError, match="start must be from 0 to 3"):
        make(4, 5.0, start=start)
