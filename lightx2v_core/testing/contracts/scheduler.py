"""The contract of schedulers. Each must follow a constant flow from data to noise, ``v = noise - data``, exactly: for
solvers of any order, each step then lies on the line ``(1 - sigma) data + sigma noise``."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import Any

import pytest

from lightx2v_core.spec.protocols import Scheduler
from lightx2v_core.spec.request import SchedulerContext
from lightx2v_core.spec.specs import SchedulerSpec
from lightx2v_core.testing.contracts.common import Contract

SHIFTS = (1.0, 3.0, 5.0, 12.0)
SHAPE = (3, 2, 4, 5)


class SchedulerContract(Contract):
    """Timesteps, noise levels and the update rule of one request."""

    kind = "scheduler"

    @pytest.fixture
    def counts(self, spec: SchedulerSpec[Any], config: Any) -> tuple[int, ...]:
        """Return the step counts to test: that fixed by the options, or several."""
        fixed = spec.steps(config)
        return (1, 2, 3, 8, 50) if fixed is None else (fixed,)

    def build(
        self, spec: SchedulerSpec[Any], config: Any, steps: int, shift: float = 5.0, start: int = 0
    ) -> Scheduler:
        return spec.build(config, SchedulerContext(steps=steps, shift=shift, start=start))

    def test_noise_falls_to_zero(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:
        for steps in counts:
            for shift in SHIFTS:
                scheduler = self.build(spec, config, steps, shift)
                sigmas, timesteps = list(scheduler.sigmas), list(scheduler.timesteps)
                assert len(timesteps) == steps, f"{len(timesteps)} timesteps for {steps} steps"
                assert len(sigmas) == steps + 1, (
                    f"{len(sigmas)} noise levels for {steps} steps; there must be one more than steps"
                )
                assert sigmas[-1] == 0, f"the last noise level is {sigmas[-1]}, not 0"
                assert 0 < sigmas[0] <= 1, f"the first noise level is {sigmas[0]}, not above 0 and at most 1"
                assert all(a > b for a, b in pairwise(sigmas)), f"noise levels are not descending: {sigmas}"
                assert all(a >= b for a, b in pairwise(timesteps)), f"timesteps increase: {timesteps}"
                assert all(isfinite(t) for t in timesteps)

    def test_a_constant_flow_is_followed_exactly(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:

        for steps in counts:
            for shift in SHIFTS:
                scheduler = self.build(spec, config, steps, shift)
                data, noise = _noise(1), _noise(2)
                latents = _mixed(data, noise, scheduler.sigmas[0])
                for index in range(steps):
                    latents = scheduler.step(noise - data, index, latents)
                    wanted = _mixed(data, noise, scheduler.sigmas[index + 1])
                    off = (latents - wanted).abs().max().item()
                    assert off < 1e-4, (
                        f"after step {index} of {steps} at shift {shift:g}, the error of the latents is {off:.2g}"
                    )

    def test_steps_are_float32(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:
        import torch

        scheduler = self.build(spec, config, counts[-1])
        latents = _noise(1)
        for index in range(counts[-1]):
            latents = scheduler.step(_noise(index).bfloat16(), index, latents)
            assert latents.dtype == torch.float32, f"step {index} returned {latents.dtype}"
            assert latents.shape == SHAPE

    def test_inputs_stay_as_they_are(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:
        """Check that latents and predictions are not modified, as the caller may reuse them."""
        import torch

        scheduler = self.build(spec, config, counts[-1])
        latents = _noise(1)
        for index in range(counts[-1]):
            velocity, before = _noise(index + 2), latents.clone()
            kept = velocity.clone()
            after = scheduler.step(velocity, index, latents)
            assert torch.equal(velocity, kept), "the prediction was modified"
            assert torch.equal(latents, before), "the latents were modified"
            latents = after

    def test_requests_do_not_share_a_history(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:
        """Check that a new scheduler is independent of those of earlier and concurrent requests."""
        import torch

        steps = counts[-1]

        def run(scheduler: Scheduler, other: Scheduler | None = None) -> Any:
            latents = _noise(1)
            for index in range(steps):
                if other is not None:
                    other.step(_noise(90 + index), index, _noise(70 + index))
                latents = scheduler.step(_noise(10 + index), index, latents)
            return latents

        alone = run(self.build(spec, config, steps))
        beside = run(self.build(spec, config, steps), self.build(spec, config, steps))
        assert torch.equal(alone, beside), "schedulers of two requests share state"

    def test_it_can_go_on_from_the_middle(
        self, spec: SchedulerSpec[Any], config: Any, counts: tuple[int, ...], usable: None
    ) -> None:
        """Skip the first steps with ``SchedulerContext.start``: the rest counts from 0, without a history."""
        import torch

        for steps in counts:
            whole = self.build(spec, config, steps)
            for start in {1, steps // 2, steps - 1} - {0, steps}:
                late = self.build(spec, config, steps, start=start)
                assert list(late.timesteps) == list(whole.timesteps)[start:], (
                    "SchedulerContext.start is ignored"
                )
                assert list(late.sigmas) == list(whole.sigmas)[start:]
                data, noise = _noise(1), _noise(2)
                latents = _mixed(data, noise, late.sigmas[0])
                for index in range(steps - start):
                    latents = late.step(noise - data, index, latents)
                off = (latents - data).abs().max().item()
                assert torch.allclose(latents, data, atol=1e-4, rtol=1e-4), (
                    f"started at step {start} of {steps}, the error of the final latents is {off:.2g}"
                )


def _noise(seed: int) -> Any:
    import torch

    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def _mixed(data: Any, noise: Any, sigma: float) -> Any:
    return (1 - sigma) * data + sigma * noise
