"""Running one request on a loaded model: encode, denoise and decode, segment by segment."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from attrs import evolve
from torch import Tensor

from lightx2v_core.config.structure import unstructure
from lightx2v_core.errors import RunError
from lightx2v_core.events import Emit, Event, PhaseDone, PhaseStarted, Progress, StepDone, ignore
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.runtime.build import expert_names
from lightx2v_core.runtime.denoise import Leg, denoise, no_turns
from lightx2v_core.runtime.device import peak_memory, reset_peak_memory, synchronize
from lightx2v_core.runtime.finite import Guard
from lightx2v_core.runtime.record import run_record
from lightx2v_core.runtime.seams import between
from lightx2v_core.spec.protocols import Conditions, Scheduler, Segment, VideoModel
from lightx2v_core.spec.recognition import Stage
from lightx2v_core.spec.request import Request, SchedulerContext


class Job:
    """One request. ``frames`` runs it; afterwards ``latents`` and ``record`` are available. ``prepare`` is called with
    the expert that is about to be used."""

    def __init__(
        self,
        model: VideoModel,
        resolved: Resolution,
        load_seconds: float,
        emit: Emit,
        *,
        prepare: Callable[[int], None] = no_turns,
    ) -> None:
        self.plan = resolved.plan
        self._resolved = resolved
        self._model = model
        self._prepare = prepare
        self._emit = emit
        self._guard = Guard(plan=resolved.plan, experts=expert_names(resolved))
        self._steps: list[float] = []
        self._latents: list[Tensor] = []
        self._clock = Clock(emit)
        self._clock.seconds["load"] = load_seconds
        self._device = resolved.location.ctx.device
        reset_peak_memory(self._device)

    def frames(self) -> Iterator[Tensor]:
        """Run the request, yielding chunks [3, n, H, W] of float32 frames in [-1, 1] on the CPU in order as they are
        decoded. Raises ``RunError`` if the device runs out of memory, or a result is not finite."""
        total, done = self.plan.request.frames, 0
        try:
            for chunk in self._segments():
                done += chunk.shape[1]
                yield chunk
        except torch.OutOfMemoryError as exc:
            raise RunError(
                f"out of memory on {self._device.name}: {exc}; use a smaller size or dtype, fewer frames, tiled "
                "decoding, or an offloader"
            ) from None
        if done != total:
            raise RunError(f"{self.plan.variant} decoded {done} frames instead of the requested {total}")

    @property
    def latents(self) -> Tensor:
        """Return the final latents [C, T, h, w], float32, on the CPU, as passed to the decoder: without latent frames
        of reference images; several segments are concatenated."""
        return torch.cat(self._latents, dim=1)

    def record(self) -> dict[str, object]:
        """Build the run record up to the current state of the run."""
        return run_record(
            self.plan,
            unstructure(self._resolved.location.loaded.config),
            self._resolved.subject.inputs,
            timings=self._clock.seconds,
            steps=self._steps,
            peak_memory=self._peak_memory(),
        )

    def _segments(self) -> Iterator[Tensor]:
        """Generate segment after segment, until one carries no frames over. Most models have a single segment."""
        generator = torch.Generator("cpu").manual_seed(self.plan.request.seed)
        before: Segment | None = None
        done = 0
        while True:
            encoded = self._encode(before)
            latents = self._denoise(encoded, generator)
            conditions = encoded[-1]  # the last stage has the size of the video
            latents = latents[:, conditions.lead :]
            self._latents.append(latents.float().cpu())
            tail: list[Tensor] = []
            for chunk in self._decode(latents, conditions, done, tail):
                done += chunk.shape[1]
                yield chunk
            if not conditions.carry or done >= self.plan.request.frames:
                return
            before = Segment(index=before.index + 1 if before else 0, frames=torch.cat(tail, dim=1))

    @torch.inference_mode()
    def _encode(self, before: Segment | None) -> list[Conditions]:
        """Encode the request for each stage of the denoising; stages of the same size share the conditions."""
        request, inputs = self.plan.request, self._resolved.subject.inputs
        more = {} if before is None else {"before": before}
        by_size: dict[tuple[int, int], Conditions] = {}
        with self._clock.phase("encode", 2 if request.guided else 1, "prompts"):
            for stage in reversed(self.plan.stages):
                size = (stage.geometry.width, stage.geometry.height)
                if size in by_size:
                    continue
                there = request if not by_size else evolve(request, width=size[0], height=size[1])
                emit = ignore if by_size else self._emit
                by_size[size] = self._model.encode(there, inputs, guided=request.guided, emit=emit, **more)
                self._guard.encoded(by_size[size])
        return [by_size[stage.geometry.width, stage.geometry.height] for stage in self.plan.stages]

    @torch.inference_mode()
    def _denoise(self, encoded: list[Conditions], generator: torch.Generator) -> Tensor:
        """Denoise a segment and return its final latents. The noise is float32 from a CPU generator, one draw of the
        whole latent shape as in the official code, so that a seed gives the same video on every device; with several
        stages, one draw for each in their order."""
        stages, legs = self.plan.stages, []
        ends = [*(stage.start for stage in stages[1:]), None]
        for stage, conditions, end in zip(stages, encoded, ends, strict=True):
            scheduler = self._scheduler(stage)
            noise = torch.randn(conditions.latent_shape, generator=generator, dtype=torch.float32)
            legs.append(
                Leg(
                    steps=len(scheduler.timesteps) if end is None else end - stage.start,
                    scheduler=scheduler,
                    noise=noise.to(self._device.torch_name),
                    conditions=conditions,
                )
            )
        with self._clock.phase("denoise", sum(leg.steps for leg in legs), "steps"):
            return denoise(
                self._model,
                legs,
                self.plan.request,
                emit=self._note,
                synchronize=partial(synchronize, self._device),
                prepare=self._prepare,
                guard=self._guard.step,
            )

    def _scheduler(self, stage: Stage) -> Scheduler:
        """Build a scheduler for the steps from a stage on. Raises ``RunError`` if it does not support that start."""
        request, chosen = self.plan.request, self._resolved.request.scheduler
        context = SchedulerContext(steps=request.steps, shift=stage.shift, start=stage.start)
        scheduler: Scheduler = chosen.spec.build(chosen.config, context)
        if stage.start and len(scheduler.timesteps) != request.steps - stage.start:
            raise RunError(
                f"scheduler {request.scheduler} has {len(scheduler.timesteps)} steps when started at step "
                f"{stage.start} of {request.steps}: it ignores SchedulerContext.start; use another scheduler, or keep "
                "one size"
            )
        return scheduler

    def _decode(
        self, latents: Tensor, conditions: Conditions, done: int, tail: list[Tensor]
    ) -> Iterator[Tensor]:
        """Decode the frames of a segment after the first ``done`` of the video, up to the end of the video: the last
        segment may be longer. ``tail`` receives the frames that the segment carries over."""
        total = self.plan.request.frames
        with self._clock.phase("decode", total, "frames"):
            chunks = decoded(self._model, latents, self.plan.request, self._guard)
            if conditions.carry:
                chunks = _with_tail(chunks, conditions.carry, tail)
            for chunk in between(chunks, conditions.overlap, total - done):
                done += chunk.shape[1]
                self._emit(Progress(phase="decode", done=done, total=total))
                yield chunk

    def _note(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._steps.append(event.seconds)
        self._emit(event)

    def _peak_memory(self) -> dict[str, int]:
        unit = 1 if sys.platform == "darwin" else 1024
        peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        if (device := peak_memory(self._device)) is not None:
            peaks["device"] = device
        return peaks


class Clock:
    """A timer of phases: sums the seconds of each phase over segments, and emits the events around it."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int, unit: str) -> Iterator[None]:
        self._emit(PhaseStarted(phase=name, total=total, unit=unit))
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._emit(PhaseDone(phase=name, seconds=seconds))


def decoded(model: VideoModel, latents: Tensor, request: Request, guard: Guard) -> Iterator[Tensor]:
    """Decode latents, yielding chunks [3, n, H, W] of float32 frames in [-1, 1] on the CPU as normal tensors, outside
    of inference mode. Raises ``RunError`` if they are not finite."""
    chunks = iter(model.decode(latents, request))
    while True:
        with torch.inference_mode():
            chunk = next(chunks, None)
            if chunk is None:
                return
            guard.frames(chunk)
            chunk = chunk.float().clamp(-1, 1).cpu()
        yield chunk.clone()


def _with_tail(chunks: Iterator[Tensor], count: int, tail: list[Tensor]) -> Iterator[Tensor]:
    """Yield the chunks unchanged; ``tail`` holds the last ``count`` frames of those consumed, in one tensor."""
    for chunk in chunks:
        frames = torch.cat([*tail, chunk], dim=1)
        tail[:] = [frames[:, max(frames.shape[1] - count, 0) :]]
        yield chunk
