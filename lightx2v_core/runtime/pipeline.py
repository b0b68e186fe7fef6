"""The Python API of a run: load, encode, denoise, decode, write. The command line is a thin layer on this module.

pipeline = load("models/acme", config={"sampling": {"steps": 20}})
video = pipeline.generate(prompt="a red fox", seed=42)
video.save("fox.mp4")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from lightx2v_core.checkpoint.serialize import serialize_safetensors
from lightx2v_core.config.keyword_types import GenerateKeywords, LoadKeywords
from lightx2v_core.config.keywords import KEYWORDS, keyword_values, lora_configs
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.config.model import LoraConfig, OutputConfig
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.errors import RequestError, suggestion
from lightx2v_core.events import (
    Emit,
    Saved,
    Warned,
    ignore,
)
from lightx2v_core.plan.output import is_record, planned_output, record_path
from lightx2v_core.plan.plan import Plan, PlannedOutput
from lightx2v_core.plan.request import request_output
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.resolve import check_ready, resolve, resolve_job, with_adapters
from lightx2v_core.runtime.build import LoadedModel, build_model, expert_names, load_bytes, refuse_impossible
from lightx2v_core.runtime.finite import Guard
from lightx2v_core.runtime.job import Clock, Job, decoded
from lightx2v_core.runtime.proof.proven import proven
from lightx2v_core.runtime.record import dumps
from lightx2v_core.runtime.seams import between
from lightx2v_core.runtime.video import publication
from lightx2v_core.spec.renamed import warn_renamed

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: a LoRA file: its path, or an entry of the configuration's ``loras``
Lora: TypeAlias = str | Path | Mapping[str, Any] | LoraConfig


def load(
    model_path: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    plugins: PluginSet | None = None,
    on_event: Emit = ignore,
    **overrides: Unpack[LoadKeywords],
) -> Pipeline:
    """Load a model. ``config`` is a file or plain data; ``overrides`` are named like the command line's options
    (``task``, ``steps``, ``size=(832, 480)``, ``attention="sdpa"``, ...).

    Raises ``RequestError`` (and its subclasses) for every error found before weights are read.
    """
    values = [
        Value(path=("model_path",), value=str(model_path), origin="model_path"),
        *keyword_values(overrides, KEYWORDS),
    ]
    loaded = load_config(config, values)
    return Pipeline.load(resolve(loaded, plugins or load_plugins()), on_event=on_event)


@frozen(kw_only=True)
class Video:
    """A finished video: float32 ``frames`` [3, F, H, W] in [-1, 1], and the ``latents`` [C, T, h, w] from which they
    were decoded; the latents of several segments are concatenated, see ``Pipeline.decode``."""

    frames: Tensor
    latents: Tensor
    plan: Plan
    record: Mapping[str, Any]

    def save(self, path: str | Path, *, record: bool = True, crf: int = 18) -> Path:
        """Write an ``.mp4``, a ``.png`` (one frame) or a folder of PNGs, atomically. Returns its path."""
        output = planned_output(
            OutputConfig(path=str(path), record=record, crf=crf), self.plan.variant, self.plan.request
        )
        write_video([self.frames], output, self.plan, dict(self.record))
        return Path(output.path)


class Pipeline:
    """A loaded model. It serves any number of requests, which never change it."""

    def __init__(self, resolved: Resolution, loaded: LoadedModel, seconds: float) -> None:
        self._resolved = resolved
        self._loaded = loaded
        self._model = loaded.model
        self._load_seconds = seconds

    @classmethod
    def load(cls, resolved: Resolution, *, on_event: Emit = ignore) -> Pipeline:
        """Load the model of a resolved plan. Raises ``RequestError`` if the weights do not fit, or if a kernel selected
        by name computes wrong results on this machine; an automatic choice falls back to another kernel."""
        refuse_impossible(resolved.plan)
        resolved = proven(resolved)
        for warning in resolved.plan.warnings:
            on_event(Warned(message=warning))
        clock = Clock(on_event)
        with clock.phase("load", load_bytes(resolved), "bytes"):
            loaded = build_model(resolved, emit=on_event)
        return cls(resolved, loaded, clock.seconds["load"])

    def close(self) -> None:
        """Release the memory, threads and files of offloaders. The pipeline cannot be used afterwards."""
        self._loaded.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def plan(self) -> Plan:
        """Return the plan with the defaults of this pipeline."""
        return self._resolved.plan

    def module(self, component: str) -> nn.Module:
        """Return the network of a component, such as ``"dit"``, to inspect, hook or compile it (``.compile()`` changes
        it in place). ``plan.components`` lists the names.

        An offloader moves the weights: outside of its use a network may be on the CPU or have no data (device
        ``meta``), which ``Module.to`` cannot change.

        Raises ``RequestError`` for a component that this model does not have, or does not load as a network."""
        modules = self._loaded.modules
        if component not in modules:
            raise RequestError(
                f"{self.plan.variant} has no network {component!r}{suggestion(component, modules)}; "
                f"its networks are: {', '.join(modules)}"
            )
        return modules[component]

    def set_loras(self, loras: Sequence[Lora]) -> Plan:
        """Replace the applied LoRA files by ``loras``, in this order; ``[]`` applies none. An entry is a path, or an
        entry of the configuration's ``loras``: ``{"path": ..., "strength": 0.8}``. The resulting weights are those of a
        fresh ``load`` with the same files. Returns the plan.

        Raises ``RequestError`` for an invalid entry or file, and changes nothing then. Must not be called during a
        request."""
        resolved = with_adapters(self._resolved, lora_configs(loras))
        self.use_adapters(resolved)
        self._resolved = resolved
        return self.plan

    def use_adapters(self, resolved: Resolution) -> None:
        """Apply the LoRA files of a plan of this model to the following requests; files applied already are kept. The
        pipeline's own plan does not change."""
        if resolved.setup.adaptation.applier is not None:
            self._loaded.adapters.switch(
                resolved.setup.adaptation.applier, resolved.setup.adaptation.adapters
            )

    @property
    def loras(self) -> tuple[LoraConfig, ...]:
        """Return the applied LoRA files in their order, as accepted by ``set_loras``."""
        return self._resolved.location.loaded.config.loras

    def add_lora(self, lora: Lora) -> Plan:
        """Add a LoRA file after the others; see ``set_loras``."""
        return self.set_loras([*self.loras, lora])

    def remove_lora(self, path: str | Path) -> Plan:
        """Remove an applied LoRA file. Raises ``RequestError`` if it is not applied."""
        return self.set_loras([lora for lora in self.loras if lora not in self._applied(path)])

    def set_lora_strength(self, path: str | Path, strength: float) -> Plan:
        """Change the strength of an applied LoRA file. Raises ``RequestError`` if it is not applied."""
        applied = self._applied(path)
        return self.set_loras(
            [evolve(lora, strength=strength) if lora in applied else lora for lora in self.loras]
        )

    def weigh_lora(self, path: str | Path, strength: float) -> Plan:
        """Call ``set_lora_strength`` by its name of 0.1, with a warning."""
        warn_renamed("Pipeline.weigh_lora")
        return self.set_lora_strength(path, strength)

    def _applied(self, path: str | Path) -> list[LoraConfig]:
        applied = [lora for lora in self.loras if lora.path == str(path)]
        if not applied:
            names = [lora.path for lora in self.loras]
            raise RequestError(
                f"LoRA {str(path)!r} is not applied{suggestion(str(path), names)}; "
                f"applied are: {', '.join(names) or 'none'}"
            )
        return applied

    def resolve(self, **request: Unpack[GenerateKeywords]) -> Resolution:
        """Plan one request. Only options of a request are accepted; others need a new ``load``."""
        return resolve_job(self._resolved, request)

    def generate(self, *, on_event: Emit = ignore, **request: Unpack[GenerateKeywords]) -> Video:
        """Generate a video in memory. ``request`` is named like the command line's options: ``prompt``,
        ``negative_prompt``, ``seed``, ``size``, ``frames``, ``steps``, ``guide_scale``, ``shift``, ...; ``image`` and
        the other inputs may be paths, PIL images, arrays or tensors."""
        resolved = self.resolve(**request)
        check_ready(resolved)
        job = self._job(resolved, on_event)
        frames = torch.cat(list(job.frames()), dim=1)
        return Video(frames=frames, latents=job.latents, plan=job.plan, record=job.record())

    def write(
        self,
        path: str | Path,
        *,
        record: bool = True,
        crf: int = 18,
        on_event: Emit = ignore,
        **request: Unpack[GenerateKeywords],
    ) -> Path:
        """Generate into a file or a folder of PNGs, like ``lightx2v-core run``: frames are written while they are
        decoded and are never all in memory. ``request`` is as for ``generate``."""
        resolved = self.resolve(**request)
        check_ready(resolved)
        config = evolve(
            resolved.location.loaded.config, output=OutputConfig(path=str(path), record=record, crf=crf)
        )
        output = request_output(config, resolved.setup.match, resolved.plan.request, resolved.subject.inputs)
        return self.generate_to(resolved, output, on_event=on_event)

    def decode(self, latents: Tensor, *, frames: int | None = None) -> Tensor:
        """Decode latents [C, T, h, w], of ``Video`` or ``--dump-tensors``, to frames [3, F, H, W] in [-1, 1]; both are
        float32 and on the CPU.

        The segments of a model are decoded separately, and frames that repeat the previous segment are dropped. The
        last segment may extend beyond the end of the video: ``frames`` is the number of frames of the video. Its
        default is that of the pipeline's own plan if the latents have the shape in it, else all frames of the latents.

        Raises ``RequestError`` for latents of another latent space."""
        shape = self.plan.geometry
        if latents.ndim != 4 or not latents.numel() or latents.shape[0] != shape.latent_shape[0]:
            raise RequestError(
                f"not latents of {self.plan.variant}: shape {list(latents.shape)}, expected "
                f"[{shape.latent_shape[0]}, T, h, w]"
            )
        if frames is None and tuple(latents.shape) == shape.video_latents:
            frames = shape.frames
        once = latents.shape[1] if shape.overlap is None else shape.latent_shape[1] - shape.lead
        guard = Guard(plan=self.plan, experts=expert_names(self._resolved))
        decoded_chunks: list[Tensor] = []
        for segment in torch.split(latents, once, dim=1):
            there = segment.to(self._resolved.location.ctx.device.torch_name)
            chunks = decoded(self._model, there, self.plan.request, guard)
            repeated = shape.overlap if decoded_chunks and shape.overlap else 0
            left = None if frames is None else frames - sum(chunk.shape[1] for chunk in decoded_chunks)
            decoded_chunks += between(chunks, repeated, left)
        return torch.cat(decoded_chunks, dim=1)

    def generate_to(
        self,
        resolved: Resolution,
        output: PlannedOutput,
        *,
        dump: Path | None = None,
        on_event: Emit = ignore,
        named: Callable[[], None] = lambda: None,
    ) -> Path:
        """Generate and write while decoding. ``dump`` is a safetensors file for ``latents`` and ``video``. ``named`` is
        called after publication, before a deferred signal is delivered."""
        job = self._job(resolved, on_event)
        kept: list[Tensor] = []

        def chunks() -> Iterator[Tensor]:
            for chunk in job.frames():
                if dump is not None:
                    kept.append(chunk)
                yield chunk

        def tensors() -> Mapping[Path, bytes]:
            if dump is None:
                return {}
            return {
                dump: b"".join(
                    serialize_safetensors({"latents": job.latents, "video": torch.cat(kept, dim=1)})
                )
            }

        record = write_video(chunks(), output, job.plan, job.record, extra=tensors, named=named)
        on_event(Saved(path=output.path, record=record, frames=job.plan.request.frames))
        return Path(output.path)

    def _job(self, resolved: Resolution, on_event: Emit) -> Job:
        for warning in resolved.plan.warnings:
            if warning not in self.plan.warnings:  # those were emitted when the model was loaded
                on_event(Warned(message=warning))
        return Job(self._model, resolved, self._load_seconds, on_event, prepare=self._loaded.prepare)


def write_video(
    chunks: Iterable[Tensor],
    output: PlannedOutput,
    plan: Plan,
    record: Mapping[str, object] | Callable[[], Mapping[str, object]],
    *,
    extra: Callable[[], Mapping[Path, bytes]] = dict,
    named: Callable[[], None] = lambda: None,
) -> str | None:
    """Write frames as they arrive, then the files returned by ``extra`` and the record, all atomically. Returns the
    record's path.

    ``record`` is the record or a function that returns it; its state before decoding is also stored in the MP4.
    """
    path, frames = Path(output.path), iter(chunks)
    beside = record_path(path, output.kind)
    now = record if callable(record) else lambda: record
    first = list(islice(frames, 1))  # after the first frames, the record includes the denoising
    with publication(named) as files:
        writer = files.video(
            path,
            output.kind,
            fps=plan.request.fps,
            width=plan.request.width,
            height=plan.request.height,
            crf=output.crf,
            comment=dumps(now(), indent=None) if output.record else "",
            audio=None if output.audio is None else Path(output.audio),
        )
        for chunk in chain(first, frames):
            writer.write(chunk)
        for name, data in extra().items():
            files.bytes(name, data)
        if output.record:
            files.bytes(beside, dumps(now()).encode())
        elif path.is_file() and is_record(beside):
            files.absent(beside)  # the record of the video that is replaced
    return str(beside) if output.record else None
