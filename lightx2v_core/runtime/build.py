"""Building a loaded model from a resolved plan: open sources, build parts, read weights onto the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from attrs import evolve, frozen
from torch import nn

from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.checkpoint.formats import accounted
from lightx2v_core.checkpoint.layouts import MappedSource
from lightx2v_core.discovery.answers import default_options
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import RequestError
from lightx2v_core.events import Emit, Progress
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.quantization import Quantization, chosen_quantizers
from lightx2v_core.plan.recognize import loader_for
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.runtime.lora_switch import LoadedAdapters
from lightx2v_core.runtime.quantize import LinearReplacement, replace_linears
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import (
    LoadedComponent,
    ModelParts,
    Offloader,
    Quantizer,
    VideoModel,
    WeightSource,
)
from lightx2v_core.spec.tensors import Header


@frozen(kw_only=True)
class LoadedModel:
    """A loaded model, the networks of its components, and their offloaders."""

    model: VideoModel
    #: component -> its network, as the offloader placed it
    modules: Mapping[str, nn.Module]
    offloaders: Mapping[str, Offloader]
    #: the networks that denoise in turn, in the order of ``VideoModel.expert``
    experts: tuple[str, ...]
    adapters: LoadedAdapters

    def prepare(self, expert: int) -> None:
        """Notify the offloader of an expert that it is about to be used."""
        name = self.experts[expert]
        self.offloaders[name].prepare(name)

    def close(self) -> None:
        """Close all offloaders, even if one of them raises."""
        with ExitStack() as closing:
            for offloader in {id(held): held for held in self.offloaders.values()}.values():
                closing.callback(offloader.close)


def build_model(resolved: Resolution, *, emit: Emit) -> LoadedModel:
    """Load the model of a plan."""
    ctx, recognition = resolved.location.ctx, resolved.setup.match.recognition
    budgeted = {name: evolve(ctx, budget=budget) for name, budget in resolved.memory.budgets.items()}
    offloaders = _build_shared(resolved.memory.offloaders, budgeted)
    chosen = chosen_quantizers(resolved.setup.quantization)
    quantizers = _build_shared(chosen, dict.fromkeys(chosen, ctx))
    progress = _LoadProgress(total=load_bytes(resolved), emit=emit)
    with ExitStack() as opened, ExitStack() as failing:
        for offloader in offloaders.values():
            failing.callback(offloader.close)
        adapters = LoadedAdapters(lambda header: open_source(header, resolved.location.registry, ctx), ctx)
        adapters.choose(resolved.setup.adaptation.applier, resolved.setup.adaptation.adapters)
        components = {}
        modules: dict[str, nn.Module] = {}
        for name in recognition.components:
            component = resolved.setup.match.components[name]
            source = open_source(component.stored, resolved.location.registry, ctx)
            opened.callback(source.close)
            if component.mapped.renamed or component.header != component.stored:
                source = MappedSource(source, component.mapped)
            load_component = _ComponentLoader(
                name,
                source,
                offloaders[name],
                resolved.setup.quantization[name],
                quantizers.get(name),
                adapters,
                modules,
                progress,
            )
            components[name] = LoadedComponent(
                name=name,
                source=source,
                load=load_component,
                assets=component.assets,
                offloader=offloaders[name],
            )
        parts = ModelParts(
            variant=recognition.variant,
            architecture=recognition.architecture,
            components=components,
            attention=resolved.setup.attention.spec.build(resolved.setup.attention.config, ctx),
            device=ctx.device.torch_name,
            dtype=getattr(torch, ctx.dtype),
        )
        model: VideoModel = resolved.setup.match.spec.build(resolved.setup.match.model.config, parts)
        failing.pop_all()
    progress.finish()
    return LoadedModel(
        model=model,
        modules=modules,
        offloaders=offloaders,
        experts=expert_names(resolved),
        adapters=adapters,
    )


def expert_names(resolved: Resolution) -> tuple[str, ...]:
    """Return the components that denoise in turn: those of a group, in the order of the model's list."""
    match = resolved.setup.match
    if match.recognition.experts == 1:
        return (match.spec.components[0].name,)
    return tuple(name for name in match.recognition.components if match.part(name).group is not None)


def refuse_impossible(plan: Plan) -> None:
    """Raise ``RequestError`` before any weight is read if the weights exceed the device memory, or the forecast exceeds
    a configured limit."""
    if plan.memory.impossible:
        raise RequestError(
            f"{plan.variant} in {plan.dtype} has {plan.memory.device_weights / 2**30:.1f} GiB of weights, but "
            f"{plan.device.name} has {plan.memory.device_total / 2**30:.1f} GiB of memory; use a smaller --dtype, "
            "--set offloader=sequential, another offloader, or a smaller model"
        )
    if plan.memory.excess:
        raise RequestError(
            f"{plan.memory.excess}; raise it, use --offloader auto, or reduce --size or --frames"
        )


def load_bytes(resolved: Resolution) -> int:
    """Compute the number of bytes that loading the plan's components reads."""
    match, total = resolved.setup.match, 0
    for name in match.recognition.components:
        header = match.components[name].header
        names = {*match.recognition.expected[name], *accounted(header)} & set(header)
        total += sum(header.tensors[tensor].nbytes for tensor in names)
    return total


def open_source(header: Header, registry: Registry, ctx: BuildContext) -> WeightSource:
    """Open a source for the files of a header, with the loader of their suffix. Raises ``RequestError`` if they need
    different loaders."""
    by_loader = {}
    for path in {info.file for info in header.tensors.values()}:
        provided = loader_for(registry, path)
        by_loader[provided.qualified] = provided.spec
    if len(by_loader) != 1:
        files = ", ".join(sorted({info.file.name for info in header.tensors.values()}))
        raise RequestError(f"the files of one component must be of one type: {files}")
    spec = next(iter(by_loader.values()))
    return spec.build(default_options(spec), ctx)(header)


class _ComponentLoader:
    """The loader of one component: replaces quantized layers, applies adapters, and has the offloader place weights."""

    def __init__(
        self,
        name: str,
        source: WeightSource,
        offloader: Offloader,
        quantized: Quantization,
        quantizer: Quantizer | None,
        adapters: LoadedAdapters,
        modules: dict[str, nn.Module],
        progress: _LoadProgress,
    ) -> None:
        self._name, self._source, self._offloader = name, source, offloader
        self._quantized, self._quantizer = quantized, quantizer
        self._adapters, self._modules, self._progress = adapters, modules, progress

    def __call__(self, module: nn.Module, blocks: Sequence[str]) -> None:
        replacement = LinearReplacement()
        if self._quantizer is not None:
            replacement = replace_linears(module, self._source, self._quantized, self._quantizer)
        source = self._adapters.merged(self._name, self._source, replacement)
        weights = SourceWeights(module, source, self._progress.add)
        self._offloader.place(self._name, module, weights, blocks)
        self._adapters.loaded(self._name, module, self._source, weights, self._offloader, replacement)
        self._modules[self._name] = module.eval()


class _LoadProgress:
    """A byte counter that emits about a hundred progress events in all."""

    def __init__(self, *, total: int, emit: Emit) -> None:
        self.total, self.done, self._emit, self._said = total, 0, emit, 0

    def finish(self) -> None:
        """Stop the counting: reads by an offloader after loading are not part of it."""
        self.total = 0

    def add(self, count: int, name: str) -> None:
        if not self.total:
            return
        self.done = min(
            self.done + count, self.total
        )  # decoded or widened tensors are larger than in the file
        if self.done == self._said:
            return
        if self.done - self._said >= self.total / 100 or self.done == self.total:
            self._said = self.done
            self._emit(Progress(phase="load", done=self.done, total=self.total, detail=name))


def _build_shared(
    chosen: Mapping[str, Implementation[Any]], contexts: Mapping[str, BuildContext]
) -> Mapping[str, Any]:
    """Build the implementation of each component; components with the same choice share the object."""
    objects: dict[tuple[str, str], Any] = {}
    by_component = {}
    for name, implementation in chosen.items():
        key = (implementation.selection.chosen.qualified, repr(implementation.config))
        if key not in objects:
            objects[key] = implementation.spec.build(implementation.config, contexts[name])
        by_component[name] = objects[key]
    return by_component
