"""A resolved plan -> a loaded model: sources opened, parts built, weights read onto the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.errors import RequestError
from lightx2v_core.events import Emit, Progress
from lightx2v_core.plan import Plan
from lightx2v_core.protocols import LoadedComponent, ModelParts, Offloader, VideoModel, WeightSource
from lightx2v_core.registry import Registry
from lightx2v_core.resolve import Resolved, loader_for
from lightx2v_core.specs import BuildContext
from lightx2v_core.tensors import Header


def build_model(resolved: Resolved, *, emit: Emit) -> VideoModel:
    """Load the model of a plan."""
    ctx, recognition = resolved.ctx, resolved.recognition
    attention = resolved.attention.spec.build(resolved.attention.config, ctx)
    offloader = resolved.offloader.spec.build(resolved.offloader.config, ctx)
    progress = _LoadProgress(total=load_bytes(resolved), emit=emit)
    with ExitStack() as opened:
        components = {}
        for name in recognition.components:
            component = resolved.components[name]
            source = open_source(component.header, resolved.registry, ctx)
            opened.callback(source.close)
            components[name] = LoadedComponent(
                name=name,
                source=source,
                load=_loading(name, source, offloader, progress),
                assets=component.assets,
                offloader=offloader,
            )
        parts = ModelParts(
            variant=recognition.variant,
            architecture=recognition.architecture,
            components=components,
            attention=attention,
            device=ctx.device.torch_name,
            dtype=getattr(torch, ctx.dtype),
        )
        model: VideoModel = resolved.model.spec.build(resolved.model.config, parts)
    return model


def refuse_impossible(plan: Plan) -> None:
    """``RequestError`` before any weight is read, when the weights alone are more than the device has."""
    if plan.memory.impossible:
        raise RequestError(
            f"{plan.variant} in {plan.dtype} has {plan.memory.device_weights / 2**30:.1f} GiB of weights and "
            f"{plan.device.name} has {plan.memory.device_total / 2**30:.1f} GiB of memory; use a smaller --dtype, an "
            "offloader, or a smaller model"
        )


def load_bytes(resolved: Resolved) -> int:
    """Bytes that loading the plan's components reads."""
    return sum(
        resolved.components[name].header.tensors[tensor].nbytes
        for name in resolved.recognition.components
        for tensor in resolved.recognition.expected[name]
    )


def open_source(header: Header, registry: Registry, ctx: BuildContext) -> WeightSource:
    """A source over the files of a header, each opened by the loader of its suffix."""
    by_loader: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name, info in header.tensors.items():
        item = loader_for(registry, info.file)
        by_loader.setdefault(item.qualified, (item.spec, {}))[1][name] = info
    sources = [
        spec.build(spec.config(), ctx)(Header(tensors=tensors, metadata=header.metadata))
        for spec, tensors in by_loader.values()
    ]
    if len(sources) != 1:
        files = ", ".join(sorted({info.file.name for info in header.tensors.values()}))
        raise RequestError(f"one component cannot be spread over files of different kinds: {files}")
    return sources[0]  # type: ignore[no-any-return]


def _loading(
    name: str, source: WeightSource, offloader: Offloader, progress: _LoadProgress
) -> Callable[[nn.Module, Sequence[str]], None]:
    def load(module: nn.Module, blocks: Sequence[str]) -> None:
        weights = SourceWeights(module, source, progress.add)
        offloader.place(name, module, weights, blocks)
        module.eval()

    return load


class _LoadProgress:
    """Counts bytes and reports about a hundred times in all."""

    def __init__(self, *, total: int, emit: Emit) -> None:
        self.total, self.done, self._emit, self._said = total, 0, emit, 0

    def add(self, count: int, name: str) -> None:
        self.done += count
        if self.done - self._said >= self.total / 100 or self.done == self.total:
            self._said = self.done
            self._emit(Progress(phase="load", done=self.done, total=self.total, detail=name))
