"""The denoising loop. Kept short, so that caching, parallel guidance and guards can wrap these functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import interpolate

from lightx2v_core.events import Emit, StepDone
from lightx2v_core.spec.protocols import Conditions, Scheduler, Step, VideoModel
from lightx2v_core.spec.request import Request


def no_turns(_expert: int) -> None:
    """Ignore the next expert."""


def unguarded(_latents: Tensor, _step: Step, _expert: int) -> None:
    """Skip the check of a step's latents."""


def _nothing() -> None:
    """Do nothing: the next step runs on the same expert."""


@frozen(kw_only=True)
class Leg:
    """The first ``steps`` of a scheduler, at one size: ``noise`` [C, T, h, w] on the device, and the conditions encoded
    at that size."""

    steps: int
    scheduler: Scheduler
    noise: Tensor
    conditions: Conditions


def denoise(
    model: VideoModel,
    legs: Sequence[Leg],
    request: Request,
    *,
    emit: Emit,
    synchronize: Callable[[], None],
    prepare: Callable[[int], None] = no_turns,
    guard: Callable[[Tensor, Step, int], None] = unguarded,
) -> Tensor:
    """Denoise the noise of the first leg to latents [C, T, h, w] of the size of the last leg, with one event per step.

    ``synchronize`` waits for the device, so that each step is timed separately. ``prepare`` is called with the next
    expert before the last pass of a step, if that expert differs. ``guard`` is called after each step with the latents,
    the step and its expert; its exceptions end the run.
    """
    steps = _steps(legs)
    experts = [model.expert(step) for step in steps]
    walk = zip(steps, experts, [*experts[1:], experts[-1]], strict=True)
    latents = model.constrain(legs[0].noise, legs[0].conditions)
    for leg, after in zip(legs, [*legs[1:], None], strict=True):
        for turn, (step, expert, following) in enumerate(islice(walk, leg.steps)):
            started = time.perf_counter()
            velocity = guided(
                model,
                latents,
                step,
                leg.conditions,
                scale=request.scale(expert),
                batched=request.batched_guidance,
                before_last=_nothing if following == expert else partial(prepare, following),
            )
            look = _Look(latents, velocity, step.sigma, leg.conditions.lead)
            if after is not None and turn == leg.steps - 1:
                latents = model.constrain(
                    resized(latents, velocity, step.sigma, after.noise), after.conditions
                )
            else:
                latents = model.constrain(leg.scheduler.step(velocity, turn, latents), leg.conditions)
            guard(latents, step, expert)
            synchronize()
            seconds = time.perf_counter() - started
            look.tell(emit, step, expert, seconds)
    return latents


class _Look:
    """The prediction of a step, valid until the listeners of its event return: a kept event does not keep latents."""

    def __init__(self, latents: Tensor, velocity: Tensor, sigma: float, lead: int) -> None:
        self._at: tuple[Tensor, Tensor] | None = (latents[:, lead:], velocity[:, lead:])
        self._sigma = sigma

    def clean(self) -> Tensor:
        """Compute ``x - sigma v``, see ``StepDone.clean``."""
        if self._at is None:
            raise RuntimeError("the clean latents of a step are available only until its listener returns")
        return clean(*self._at, self._sigma)

    def tell(self, emit: Emit, step: Step, expert: int, seconds: float) -> None:
        """Emit the event of the step, then release its latents."""
        try:
            emit(
                StepDone(
                    index=step.index,
                    count=step.count,
                    timestep=step.timestep,
                    expert=expert,
                    seconds=seconds,
                    clean=self.clean,
                )
            )
        finally:
            self._at = None


def _steps(legs: Sequence[Leg]) -> list[Step]:
    """List the steps of all legs in order."""
    levels = [
        (leg.scheduler.timesteps[turn], leg.scheduler.sigmas[turn])
        for leg in legs
        for turn in range(leg.steps)
    ]
    return [
        Step(index=index, count=len(levels), timestep=timestep, sigma=sigma)
        for index, (timestep, sigma) in enumerate(levels)
    ]


def resized(latents: Tensor, velocity: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Change the size of latents: resize (trilinear) the predicted clean latents ``x - sigma v`` to the size of
    ``noise``, and add noise up to ``sigma`` again: ``(1 - sigma) x0 + sigma noise``.

    Source: LightX2V's changing resolution, which keeps the noise level of the step that it replaces.
    """
    there = interpolate(
        clean(latents, velocity, sigma)[None], size=noise.shape[1:], mode="trilinear", align_corners=False
    )[0]
    return torch.add(there * (1 - sigma), noise, alpha=sigma)


def clean(latents: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """Compute the predicted clean latents [C, T, h, w], float32: ``x - sigma v`` of a flow from data to noise."""
    return torch.add(latents.float(), velocity.float(), alpha=-sigma)


def guided(
    model: VideoModel,
    latents: Tensor,
    step: Step,
    conditions: Conditions,
    *,
    scale: float,
    batched: bool,
    before_last: Callable[[], None] = _nothing,
) -> Tensor:
    """Predict with classifier-free guidance: ``uncond + scale * (cond - uncond)``, from two passes or one batch of two.
    ``before_last`` is called before the last pass, or the only one."""
    positive, negative, shared = conditions.positive, conditions.negative, conditions.shared
    if negative is None or scale == 1.0:
        before_last()
        return model.predict(latents, step, [positive], shared)[0]
    if batched:
        before_last()
        cond, uncond = model.predict(latents, step, [positive, negative], shared)
    else:
        (cond,) = model.predict(latents, step, [positive], shared)
        before_last()
        (uncond,) = model.predict(latents, step, [negative], shared)
    return torch.add(uncond, cond - uncond, alpha=scale)
