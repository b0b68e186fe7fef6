"""The workload of each component in a run, for memory forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from attrs import evolve

from lightx2v_core.errors import PluginFault
from lightx2v_core.plan.quantization import needs_of
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.resolution import Adaptation, RequestPlan, Setup
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.memory import MemoryNeed, Workload


def workloads(setup: Setup, request: RequestPlan, ctx: BuildContext) -> dict[str, Workload]:
    """Compute the workload of each component. Adapters that stay on the device count for every component."""
    needs, changed = _needs(setup, request, ctx), _changed(setup)
    beside = _resident_bytes(setup.adaptation)
    loads = {name: _workload(name, setup.match, need, request, ctx) for name, need in needs.items()}
    return {
        name: evolve(
            load,
            activations=load.activations + beside,
            direct=load.direct and name not in changed,
        )
        for name, load in loads.items()
    }


def _needs(setup: Setup, request: RequestPlan, ctx: BuildContext) -> dict[str, MemoryNeed]:
    """Query the model's memory forecast, and adjust it for quantized layers."""
    match = setup.match
    plain = match.spec.memory(match.recognition, request.geometry, ctx.dtype, match.model.config)
    if lacking := sorted(set(match.recognition.components) - set(plain)):
        raise PluginFault(
            f"model {match.spec.name} has no memory forecast for {', '.join(lacking)}: this is a bug in its plugin"
        )
    return {
        name: needs_of(setup.quantization[name], plain[name], ctx.dtype)
        for name in match.recognition.components
    }


def _changed(setup: Setup) -> frozenset[str]:
    """Return the components whose weights differ from the stored ones: merged with a LoRA, or quantized on load."""
    adaptation = setup.adaptation
    merges = adaptation.applier is not None and not adaptation.applier.spec.resident
    merged = {adapter.planned.component for adapter in adaptation.adapters} if merges else set()
    return frozenset(merged | {name for name, choice in setup.quantization.items() if choice.made})


def _resident_bytes(adaptation: Adaptation) -> int:
    """Count the bytes of adapters that stay on the device."""
    if adaptation.applier is None or not adaptation.applier.spec.resident:
        return 0
    return sum(adapter.planned.bytes for adapter in adaptation.adapters)


def _workload(
    name: str, match: ModelMatch, need: MemoryNeed, plan: RequestPlan, ctx: BuildContext
) -> Workload:
    recognition, part, request = match.recognition, match.part(name), plan.request
    denoises = name == match.spec.components[0].name or (recognition.experts > 1 and part.group is not None)
    elements = {tensor: prod(shape) for tensor, shape in recognition.expected[name].items()}
    total, header = sum(elements.values()), match.components[name].header
    each = need.weights / max(total, 1)
    blocks = _block_elements(elements, recognition.blocks.get(name, ()))
    return Workload(
        name=name,
        weights=need.weights,
        activations=need.activations,
        blocks=tuple(round(each * size) for size in blocks),
        passes=(2 if request.guided and not request.batched_guidance else 1) if denoises else 0,
        seconds=2.0 * total * plan.geometry.tokens / ctx.speeds.compute if denoises else 0.0,
        largest=header.largest,
        direct=header.precision in (ctx.dtype, "float8_e4m3fn", "int8"),
    )


def _block_elements(elements: Mapping[str, int], blocks: Sequence[str]) -> Iterator[int]:
    by_prefix: dict[str, int] = dict.fromkeys(blocks, 0)
    depths = sorted({prefix.count(".") + 1 for prefix in blocks})
    for name, count in elements.items():
        parts = name.split(".") if depths else []
        for end in depths:
            prefix = ".".join(parts[:end])
            if end < len(parts) and prefix in by_prefix:
                by_prefix[prefix] += count
                break
    return iter(by_prefix.values())
