"""The denoising loop. Short on purpose: caching, parallel guidance and guards wrap these two functions."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from lightx2v_core.events import Emit, StepDone
from lightx2v_core.protocols import Conditions, Scheduler, Step, VideoModel
from lightx2v_core.requests import Request


def denoise(
    model: VideoModel,
    scheduler: Scheduler,
    noise: Tensor,
    conditions: Conditions,
    request: Request,
    *,
    emit: Emit,
    synchronize: Callable[[], None],
) -> Tensor:
    """Turn ``noise`` [C, T, h, w] into latents, one event a step. ``synchronize`` waits for the device, so that the
    seconds of a step are its own."""
    count = len(scheduler.timesteps)
    latents = model.constrain(noise, conditions)
    for index, timestep in enumerate(scheduler.timesteps):
        started = time.perf_counter()
        step = Step(index=index, count=count, timestep=timestep, sigma=scheduler.sigmas[index])
        expert = model.expert(step)
        velocity = guided(
            model, latents, step, conditions, scale=request.scale(expert), batched=request.batched_guidance
        )
        latents = model.constrain(scheduler.step(velocity, index, latents), conditions)
        synchronize()
        seconds = time.perf_counter() - started
        emit(StepDone(index=index, count=count, timestep=timestep, expert=expert, seconds=seconds))
    return latents


def guided(
    model: VideoModel, latents: Tensor, step: Step, conditions: Conditions, *, scale: float, batched: bool
) -> Tensor:
    """Classifier-free guidance: ``uncond + scale * (cond - uncond)``, from two passes or one batch of two."""
    positive, negative, shared = conditions.positive, conditions.negative, conditions.shared
    if negative is None or scale == 1.0:
        return model.predict(latents, step, [positive], shared)[0]
    if batched:
        cond, uncond = model.predict(latents, step, [positive, negative], shared)
    else:
        (cond,) = model.predict(latents, step, [positive], shared)
        (uncond,) = model.predict(latents, step, [negative], shared)
    return torch.add(uncond, cond - uncond, alpha=scale)
