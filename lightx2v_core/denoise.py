"""The denoising loop. Short on purpose: caching, parallel guidance and guards wrap these two functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lightx2v_core.events import Emit, StepDone
from lightx2v_core.protocols import Conditions, Scheduler, Step, VideoModel
from lightx2v_core.requests import Request


def no_turns(_expert: int) -> None:
    """Nobody wants to know which expert comes next."""


def _nothing() -> None:
    """The next step runs on the same expert."""


def denoise(
    model: VideoModel,
    scheduler: Scheduler,
    noise: Tensor,
    conditions: Conditions,
    request: Request,
    *,
    emit: Emit,
    synchronize: Callable[[], None],
    prepare: Callable[[int], None] = no_turns,
) -> Tensor:
    """Turn ``noise`` [C, T, h, w] into latents, one event a step. ``synchronize`` waits for the device, so that the
    seconds of a step are its own. ``prepare`` is told before the last pass of a step when another expert does the next
    one."""
    count = len(scheduler.timesteps)
    latents = model.constrain(noise, conditions)
    for index, timestep in enumerate(scheduler.timesteps):
        started = time.perf_counter()
        step = _step(scheduler, index)
        expert = model.expert(step)
        following = _expert(model, scheduler, index + 1)
        turn = partial(prepare, following) if following not in (None, expert) else _nothing
        velocity = guided(
            model,
            latents,
            step,
            conditions,
            scale=request.scale(expert),
            batched=request.batched_guidance,
            before_last=turn,
        )
        latents = model.constrain(scheduler.step(velocity, index, latents), conditions)
        synchronize()
        seconds = time.perf_counter() - started
        emit(StepDone(index=index, count=count, timestep=timestep, expert=expert, seconds=seconds))
    return latents


def _step(scheduler: Scheduler, index: int) -> Step:
    count = len(scheduler.timesteps)
    return Step(index=index, count=count, timestep=scheduler.timesteps[index], sigma=scheduler.sigmas[index])


def _expert(model: VideoModel, scheduler: Scheduler, index: int) -> int | None:
    """The expert of a step; None behind the last one."""
    return model.expert(_step(scheduler, index)) if index < len(scheduler.timesteps) else None


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
