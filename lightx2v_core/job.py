"""One request on its way through a loaded model: encode, denoise, decode, segment by segment."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.config.structure import unstructure
from lightx2v_core.denoise import denoise, no_turns
from lightx2v_core.errors import RunError
from lightx2v_core.events import Emit, PhaseDone, PhaseStarted, Progress, StepDone
from lightx2v_core.protocols import Conditions, Segment, VideoModel
from lightx2v_core.record import run_record
from lightx2v_core.resolve import Resolved
from lightx2v_core.specs import SchedulerContext


class Job:
    """One request. ``frames`` does the work; afterwards ``latents`` and ``record`` tell about it. ``prepare`` is told
    which expert is about to be used."""

    def __init__(
        self,
        model: VideoModel,
        resolved: Resolved,
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
        self._steps: list[float] = []
        self._latents: list[Tensor] = []
        self._clock = Clock(emit)
        self._clock.seconds["load"] = load_seconds
        self._device = resolved.ctx.device
        if self._device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device.torch_name)

    def frames(self) -> Iterator[Tensor]:
        """Chunks [3, n, X, Y] of float32 frames in [-1, 1] on the CPU, in order, as they are decoded. ``RunError`` when
        the device runs out of memory."""
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
            raise RunError(f"{self.plan.variant} decoded {done} frames where {total} were asked for")

    @property
    def latents(self) -> Tensor:
        """The final latents [C, T, h, w], float32, on the CPU; of several segments one after the other."""
        return torch.cat(self._latents, dim=1)

    def record(self) -> dict[str, Any]:
        """The run record as far as the run has come."""
        return run_record(
            self.plan,
            unstructure(self._resolved.loaded.config),
            self._resolved.inputs,
            timings=self._clock.seconds,
            steps=self._steps,
            peak_memory=self._peak_memory(),
        )

    def _segments(self) -> Iterator[Tensor]:
        """Segment after segment, until one carries nothing on. All but a few models have one."""
        generator = torch.Generator("cpu").manual_seed(self.plan.request.seed)
        before: Segment | None = None
        done = 0
        while True:
            conditions = self._encode(before)
            latents = self._denoise(conditions, generator)
            self._latents.append(latents.float().cpu())
            tail: list[Tensor] = []
            skip = conditions.overlap
            for chunk in self._decode(latents[:, conditions.lead :], done - skip):
                tail = _last([*tail, chunk], conditions.carry)
                skip, chunk = max(skip - chunk.shape[1], 0), chunk[:, skip:]
                # the last segment of a model may be longer than what is left of the video
                chunk = chunk[:, : self.plan.request.frames - done]
                if chunk.shape[1]:
                    done += chunk.shape[1]
                    yield chunk
            if not conditions.carry:
                return
            before = Segment(index=before.index + 1 if before else 0, frames=torch.cat(tail, dim=1))

    @torch.inference_mode()
    def _encode(self, before: Segment | None) -> Conditions:
        request, inputs = self.plan.request, self._resolved.inputs
        more = {} if before is None else {"before": before}
        with self._clock.phase("encode", 2 if request.guided else 1, "prompts"):
            return self._model.encode(request, inputs, guided=request.guided, emit=self._emit, **more)

    @torch.inference_mode()
    def _denoise(self, conditions: Conditions, generator: torch.Generator) -> Tensor:
        """The final latents of a segment. The noise is float32 from a CPU generator, one draw of the whole latent shape
        as in the official code, so that a seed means the same video on every device."""
        noise = torch.randn(conditions.latent_shape, generator=generator, dtype=torch.float32)
        request, chosen = self.plan.request, self._resolved.scheduler
        context = SchedulerContext(steps=request.steps, shift=request.shift)
        scheduler = chosen.spec.build(chosen.config, context)
        with self._clock.phase("denoise", len(scheduler.timesteps), "steps"):
            return denoise(
                self._model,
                scheduler,
                noise.to(self._device.torch_name),
                conditions,
                request,
                emit=self._note,
                synchronize=self._synchronize,
                prepare=self._prepare,
            )

    def _decode(self, latents: Tensor, start: int) -> Iterator[Tensor]:
        """The frames of a segment; ``start`` is its first frame in the whole video."""
        total, done = self.plan.request.frames, start
        with self._clock.phase("decode", total, "frames"):
            chunks = iter(self._model.decode(latents, self.plan.request))
            while True:
                with torch.inference_mode():
                    chunk = next(chunks, None)
                    if chunk is None:
                        return
                    chunk = chunk.float().clamp(-1, 1).cpu()
                done += chunk.shape[1]
                self._emit(Progress(phase="decode", done=min(done, total), total=total))
                yield chunk.clone()  # a normal tensor, outside of inference mode

    def _note(self, event: Any) -> None:
        if isinstance(event, StepDone):
            self._steps.append(event.seconds)
        self._emit(event)

    def _synchronize(self) -> None:
        if self._device.kind == "cuda":
            torch.cuda.synchronize(self._device.torch_name)

    def _peak_memory(self) -> dict[str, int]:
        unit = 1 if sys.platform == "darwin" else 1024
        found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        if self._device.kind == "cuda":
            found["device"] = torch.cuda.max_memory_allocated(self._device.torch_name)
        return found


class Clock:
    """Seconds of each phase, added up over segments, and the events around it."""

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


def _last(chunks: list[Tensor], count: int) -> list[Tensor]:
    """The last ``count`` frames of some chunks."""
    if not count:
        return []
    frames = torch.cat(chunks, dim=1)
    return [frames[:, max(frames.shape[1] - count, 0) :]]
