"""The schedule of step-distilled models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from lightx2v_core.builtin.schedulers.distill import StepDistill  # noqa: E402
from lightx2v_core.spec.request import SchedulerContext  # noqa: E402


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


@pytest.mark.parametrize("steps", [[], [0], [1001], [1000.5], [250, 500], [500, 500], [937.9, 937.5]])
def test_steps_that_do_not_fall_are_refused(steps: list[float]) -> None:
    with pytest.raises(ValueError, match="denoising steps"):
        StepDistill(steps, 5.0)


@pytest.mark.parametrize(
    ("steps", "levels"),
    [
        ((1000.0, 937.5, 833.3333, 625.0), (1000, 938, 834, 625)),
        ((999.9, 500.0, 0.5), (1000, 500, 1)),
        ((1000.0, 750.0, 500.0, 250.0), (1000, 750, 500, 250)),
    ],
)
def test_a_fraction_means_the_level_that_the_original_picks(
    steps: tuple[float, ...], levels: tuple[int, ...]
) -> None:
    """The original picks from its grid at ``1000 - t``, truncated."""
    grid = torch.linspace(1, 0, 1001)[:-1]
    picked = grid[[int(1000 - t) for t in steps]]
    picked = 3 * picked / (1 + 2 * picked)
    made = StepDistill(steps, 3.0)
    torch.testing.assert_close(torch.tensor(made.sigmas[:-1]), picked, atol=1e-6, rtol=0)
    assert made.sigmas == StepDistill(levels, 3.0).sigmas


@pytest.mark.parametrize("key", ["denoising_step_list", "scheduler.options.distill.denoising_steps"])
def test_fractions_in_a_configuration(key: str, tmp_path: Path) -> None:
    """Of either vocabulary; two timesteps of one level are an error with both numbers."""
    pytest.importorskip("lightx2v_wan21")
    from lightx2v_core.config.load import load_config, parse_set
    from lightx2v_core.discovery.plugins import load_plugins
    from lightx2v_core.errors import ConfigError
    from lightx2v_core.plan.resolve import resolve
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(tmp_path, 0)
    use = [parse_set("scheduler=distill")] if "." in key else []

    def planned(steps: str) -> Any:
        loaded = load_config({"model_path": str(tmp_path)}, [*use, parse_set(f"{key}={steps}")])
        return resolve(loaded, load_plugins())

    resolved = planned("[1000.0, 937.5, 833.3333, 625.0]")
    assert resolved.plan.request.steps == 4
    stage = resolved.plan.stages[0]
    sigmas = resolved.request.scheduler.spec.build(
        resolved.request.scheduler.config, SchedulerContext(steps=4, shift=3.0, start=stage.start)
    ).sigmas
    assert sigmas == pytest.approx((1, 0.978442, 0.937781, 0.833333, 0), abs=1e-6)
    with pytest.raises(ConfigError, match=r"got 937\.9 and then 937\.5: both are training level 938"):
        planned("[937.9, 937.5]")
    with pytest.raises(ConfigError, match="from 1000 down to 1"):
        planned("[1000.5, 2]")


def test_order_matters() -> None:
    with pytest.raises(ValueError, match="index"):
        StepDistill([1000, 500], 5.0).step(torch.zeros(1), 1, torch.zeros(1))


def test_a_late_start_leaves_the_first_steps_out() -> None:
    whole, late = StepDistill((1000, 750, 500, 250), 5.0), StepDistill((1000, 750, 500, 250), 5.0, start=2)
    assert (late.timesteps, late.sigmas) == (whole.timesteps[2:], whole.sigmas[2:])
    with pytest.raises(ValueError, match="start must be from 0 to 3"):
        StepDistill((1000, 750, 500, 250), 5.0, start=4)
