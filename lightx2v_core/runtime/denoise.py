"""The denoising loop. Short on purpose: caching, parallel guidance and guards wrap these functions."""

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
    """Nobody wants to know which expert comes next."""


def unguarded(_latents: Tensor, _step: Step, _expert: int) -> None:
    """Nobody looks at the latents of a step."""


def _nothing() -> None:
    """The next step runs on the same expert."""


@frozen(kw_only=True)
class Leg:
    """The first ``steps`` of a scheduler, at one size: ``noise`` [C, T, h, w] on the device, and what the request was
    encoded to at that size."""

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
    """Turn the noise of the first leg into latents [C, T, h, w] of the size of the last, one event a step.
    ``synchronize`` waits for the device, so that the seconds of a step are its own. ``prepare`` is told before the last
    pass of a step when another expert does the next one. ``guard`` is shown the latents after each step, and the expert
    that made them; what it raises ends the run."""
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
    """What a step predicts, for as long as its event is listened to: a listener that keeps events keeps no latents."""

    def __init__(self, latents: Tensor, velocity: Tensor, sigma: float, lead: int) -> None:
        self._at: tuple[Tensor, Tensor] | None = (latents[:, lead:], velocity[:, lead:])
        self._sigma = sigma

    def clean(self) -> Tensor:
        """``x - sigma v``, see ``StepDone.clean``."""
        if self._at is None:
            raise RuntimeError("the clean latents of a step can be asked for until its listener returns")
        return clean(*self._at, self._sigma)

    def tell(self, emit: Emit, step: Step, expert: int, seconds: float) -> None:
        """Say that the step is done, and forget it."""
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
    """Every step, leg after leg."""
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
    """The step from one size to the next: the predicted clean latents ``x - sigma v`` are resized (trilinear) to the
    size of ``noise``, and noised to ``sigma`` again: ``(1 - sigma) x0 + sigma noise``.

    Source: LightX2V's changing resolution, which keeps the noise level of the step that it replaces.
    """
    there = interpolate(
        clean(latents, velocity, sigma)[None], size=noise.shape[1:], mode="trilinear", align_corners=False
    )[0]
    return torch.add(there * (1 - sigma), noise, alpha=sigma)


def clean(latents: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """The clean latents [C, T, h, w] that a step predicts, float32: ``x - sigma v`` of a flow from data to noise."""
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
    """Classifier-free guidance: ``uncond + scale * (cond - uncond)``, from two passes or one batch of two.
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
