"""The schedule of step-distilled models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from lightx2v_core.builtin.schedulers.distill import StepDistill  # noqa: E402


@pytest.mark.parametrize("name", ["wan21_0", "wan21_1", "wan22_moe_0", "wan22_moe_1"])
def test_it_equals_the_original(name: str, golden: Callable[[str], Path]) -> None:
    folder = golden("sched_step_distill")
    variant = json.loads((folder / "case.json").read_text())["variants"][name]
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    scheduler = StepDistill(variant["list"], variant["shift"])
    torch.testing.assert_close(
        torch.tensor(scheduler.timesteps), outputs[f"{name}.timesteps"], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        torch.tensor(scheduler.sigmas[:-1]), outputs[f"{name}.sigmas"], atol=1e-6, rtol=0
    )
    sample = inputs[f"{name}.noise"]
    for index, prediction in enumerate(inputs[f"{name}.model_output"]):
        sample = scheduler.step(prediction, index, sample)
        torch.testing.assert_close(sample, outputs[f"{name}.samples"][index], atol=1e-4, rtol=1e-3)


def test_the_timesteps_of_the_guides() -> None:
    assert StepDistill((1000, 750, 500, 250), 5).timesteps == pytest.approx(
        (1000, 937.5, 833.333, 625), abs=1e-3
    )
    assert StepDistill((1000, 750, 500, 250), 16).timesteps == pytest.approx(
        (1000, 979.6, 941.2, 842.1), abs=0.05
    )


@pytest.mark.parametrize("steps", [[], [0], [1001], [250, 500], [500, 500]])
def test_steps_that_do_not_fall_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="denoising steps"):
        StepDistill(steps, 5.0)


def test_order_matters() -> None:
    with pytest.raises(ValueError, match="index"):
        StepDistill([1000, 500], 5.0).step(torch.zeros(1), 1, torch.zeros(1))


def test_a_late_start_leaves_the_first_steps_out() -> None:
    whole, late = StepDistill((1000, 750, 500, 250), 5.0), StepDistill((1000, 750, 500, 250), 5.0, start=2)
    assert (late.timesteps, late.sigmas) == (whole.timesteps[2:], whole.sigmas[2:])
    with pytest.raises(ValueError, match="start must be from 0 to 3"):
        StepDistill((1000, 750, 500, 250), 5.0, start=4)
