"""The run, top to bottom: load, encode, denoise, decode, write. The command line is a thin user of this module.

pipeline = load("models/Wan2.1-T2V-1.3B", config={"sampling": {"steps": 20}})
video = pipeline.generate(prompt="a red fox", seed=42)
video.save("fox.mp4")
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.build import build_model, load_bytes, refuse_impossible
from lightx2v_core.checkpoint.serialize import serialized
from lightx2v_core.config.keywords import KEYWORDS, keyword_values
from lightx2v_core.config.load import Value, load_config
from lightx2v_core.config.model import OutputConfig
from lightx2v_core.config.structure import unstructure
from lightx2v_core.denoise import denoise, initial_noise
from lightx2v_core.errors import RunError
from lightx2v_core.events import (
    Emit,
    PhaseDone,
    PhaseStarted,
    Progress,
    Saved,
    StepDone,
    Warned,
    ignore,
)
from lightx2v_core.output import planned_output, record_path
from lightx2v_core.plan import Plan, PlannedOutput
from lightx2v_core.plugins import PluginSet, load_plugins
from lightx2v_core.protocols import VideoModel
from lightx2v_core.record import dumps, run_record
from lightx2v_core.resolve import Resolved, check_ready, resolve, resolve_job
from lightx2v_core.specs import SchedulerContext
from lightx2v_core.video import open_writer, write_bytes


def load(
    model_path: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    plugins: PluginSet | None = None,
    on_event: Emit = ignore,
    **overrides: Any,
) -> Pipeline:
    """Load a model. ``config`` is a file or plain data; ``overrides`` are named like the command line's options
    (``task``, ``steps``, ``size=(832, 480)``, ``attention="sdpa"``, ...).

    Raises ``RequestError`` (and its kinds) for everything that is wrong before weights are read.
    """
    values = [
        Value(path=("model_path",), value=str(model_path), origin="model_path"),
        *keyword_values(overrides, KEYWORDS),
    ]
    loaded = load_config(config, values)
    return Pipeline.load(resolve(loaded, plugins or load_plugins()), on_event=on_event)


@frozen(kw_only=True)
class Video:
    """A finished video: float32 ``frames`` [3, F, X, Y] in [-1, 1] and ``latents`` [C, T, h, w]."""

    frames: Tensor
    latents: Tensor
    plan: Plan
    record: Mapping[str, Any]

    def save(self, path: str | Path, *, record: bool = True, crf: int = 18) -> Path:
        """Write an ``.mp4``, a ``.png`` (one frame) or a folder of PNGs; whole or not at all."""
        output = planned_output(
            OutputConfig(path=str(path), record=record, crf=crf), self.plan.variant, self.plan.request
        )
        write_video([self.frames], output, self.plan, dict(self.record))
        return Path(output.path)


class Pipeline:
    """A loaded model. It serves many requests, and requests never change it."""

    def __init__(self, resolved: Resolved, model: VideoModel, seconds: float) -> None:
        self._resolved = resolved
        self._model = model
        self._load_seconds = seconds

    @classmethod
    def load(cls, resolved: Resolved, *, on_event: Emit = ignore) -> Pipeline:
        """Read the weights of a resolved plan. ``RequestError`` when they cannot fit."""
        refuse_impossible(resolved.plan)
        for warning in resolved.plan.warnings:
            on_event(Warned(message=warning))
        clock = _Clock(on_event)
        with clock.phase("load", load_bytes(resolved), "bytes"):
            model = build_model(resolved, emit=on_event)
        return cls(resolved, model, clock.seconds["load"])

    @property
    def plan(self) -> Plan:
        """The plan with the defaults of this pipeline."""
        return self._resolved.plan

    def resolve(self, **request: Any) -> Resolved:
        """The plan of one request. Only what a request may say is accepted; the rest needs a new ``load``."""
        return resolve_job(self._resolved, request)

    def generate(self, *, on_event: Emit = ignore, **request: Any) -> Video:
        """Generate a video in memory. ``request`` is named like the command line's options: ``prompt``,
        ``negative_prompt``, ``seed``, ``size``, ``frames``, ``steps``, ``guide_scale``, ``shift``, ...; ``image`` and
        the other inputs may be paths, PIL images, arrays or tensors."""
        resolved = self.resolve(**request)
        check_ready(resolved)
        job = Job(self, resolved, on_event)
        latents = job.latents()
        frames = torch.cat(list(job.frames(latents)), dim=1)
        return Video(frames=frames, latents=latents.cpu(), plan=job.plan, record=job.record())

    def generate_to(
        self, resolved: Resolved, output: PlannedOutput, *, dump: Path | None = None, on_event: Emit = ignore
    ) -> Path:
        """Generate and write while decoding. ``dump`` also stores ``latents`` and ``video`` as safetensors."""
        job = Job(self, resolved, on_event)
        latents = job.latents()
        kept: list[Tensor] = []

        def decoded() -> Iterator[Tensor]:
            for chunk in job.frames(latents):
                if dump is not None:
                    kept.append(chunk)
                yield chunk

        record = write_video(decoded(), output, job.plan, job.record, dump=lambda: _dump(dump, latents, kept))
        on_event(Saved(path=output.path, record=record, frames=job.plan.request.frames))
        return Path(output.path)


class Job:
    """One request on its way through a pipeline."""

    def __init__(self, pipeline: Pipeline, resolved: Resolved, emit: Emit) -> None:
        self.plan = resolved.plan
        self._resolved = resolved
        self._model = pipeline._model
        self._emit = emit
        self._steps: list[float] = []
        self._clock = _Clock(emit)
        self._clock.seconds["load"] = pipeline._load_seconds
        self._device = resolved.ctx.device
        if self._device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device.torch_name)

    @torch.inference_mode()
    def latents(self) -> Tensor:
        """Encode the prompt and denoise: the final latents [C, T, h, w], float32, on the device."""
        request = self.plan.request
        with self._clock.phase("encode", 2 if request.guided else 1, "prompts"):
            conditions = self._model.encode(
                request, self._resolved.inputs, guided=request.guided, emit=self._emit
            )
        noise = initial_noise(conditions.latent_shape, request.seed, self._device.torch_name)
        scheduler = self._resolved.scheduler.spec.build(
            self._resolved.scheduler.config, SchedulerContext(steps=request.steps, shift=request.shift)
        )
        with self._clock.phase("denoise", len(scheduler.timesteps), "steps"):
            return denoise(
                self._model,
                scheduler,
                noise,
                conditions,
                request,
                emit=self._note,
                synchronize=self._synchronize,
            )

    def frames(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode: chunks [3, n, X, Y] of float32 frames in [-1, 1] on the CPU, in order."""
        total, done = self.plan.request.frames, 0
        with self._clock.phase("decode", total, "frames"):
            chunks = iter(self._model.decode(latents, self.plan.request))
            while True:
                with torch.inference_mode():
                    chunk = next(chunks, None)
                    if chunk is None:
                        break
                    chunk = chunk.float().clamp(-1, 1).cpu()
                done += chunk.shape[1]
                self._emit(Progress(phase="decode", done=done, total=total))
                yield chunk.clone()  # a normal tensor, outside of inference mode
        if done != total:
            raise RunError(f"{self.plan.variant} decoded {done} frames where {total} were asked for")

    def record(self) -> dict[str, Any]:
        """The run record as far as the run has come."""
        config = unstructure(self._resolved.loaded.config)
        return run_record(
            self.plan,
            config,
            self._resolved.inputs,
            timings=self._clock.seconds,
            steps=self._steps,
            peak_memory=self._peak_memory(),
        )

    def _note(self, event: Any) -> None:
        if isinstance(event, StepDone):
            self._steps.append(event.seconds)
        self._emit(event)

    def _synchronize(self) -> None:
        if self._device.kind == "cuda":
            torch.cuda.synchronize(self._device.torch_name)

    def _peak_memory(self) -> dict[str, int]:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        if self._device.kind == "cuda":
            found["device"] = torch.cuda.max_memory_allocated(self._device.torch_name)
        return found


def write_video(
    chunks: Iterable[Tensor], output: PlannedOutput, plan: Plan, record: Any, *, dump: Any = lambda: None
) -> str | None:
    """Write frames as they come, then the record beside them. Returns the record's path.

    ``record`` is the record or a function that gives it; what is known before decoding goes into the MP4 itself.
    """
    path = Path(output.path)
    now = record if callable(record) else lambda: record
    with open_writer(
        path,
        output.kind,
        fps=plan.request.fps,
        width=plan.request.width,
        height=plan.request.height,
        crf=output.crf,
        comment=dumps(now(), indent=None) if output.record else "",
    ) as writer:
        for chunk in chunks:
            writer.write(chunk)
        dump()
    if not output.record:
        return None
    beside = record_path(path, output.kind)
    write_bytes(beside, dumps(now()).encode())
    return str(beside)


class _Clock:
    """Seconds of each phase, and the events around it."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int, unit: str) -> Iterator[None]:
        self._emit(PhaseStarted(phase=name, total=total, unit=unit))
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self._emit(PhaseDone(phase=name, seconds=self.seconds[name]))


def _dump(path: Path | None, latents: Tensor, chunks: list[Tensor]) -> None:
    if path is None:
        return
    tensors = {"latents": latents.float(), "video": torch.cat(chunks, dim=1)}
    write_bytes(path, b"".join(serialized(tensors)))
