"""Conversion of the results of the planning steps into a ``Plan``: plain data for display."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import evolve

from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.plan.checkpoints import checkpoint_warnings, planned_component
from lightx2v_core.plan.lora_fit import adapter_notes
from lightx2v_core.plan.plan import Choice, Plan
from lightx2v_core.plan.quantization import chosen_quantizers
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.request import planned_stages, request_output
from lightx2v_core.plan.resolution import Location, MemoryPlan, RequestPlan, Setup, Subject
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.spec.request import Request
from lightx2v_core.spec.specs import Spec
from lightx2v_core.spec.version import __version__

S = TypeVar("S", bound=Spec)


def write_plan(
    location: Location,
    subject: Subject,
    setup: Setup,
    filled: RequestPlan,
    memory: MemoryPlan,
    *,
    with_output: bool,
) -> Plan:
    """Build the plan. Raises ``RequestError`` if the output cannot be written to its path."""
    match, request, config = setup.match, filled.request, location.loaded.config
    recognition, loads = match.recognition, memory.workloads
    components = [
        planned_component(match, name, loads[name], location.loaded) for name in recognition.components
    ]
    warnings = _warnings(location, setup, filled, memory)
    return Plan(
        model=match.model.selection.chosen.qualified,
        variant=recognition.variant,
        summary=recognition.summary,
        model_path=str(location.folder),
        task=setup.task,
        device=location.ctx.device,
        device_why=location.device_why,
        dtype=location.ctx.dtype,
        dtype_why=location.dtype_why,
        components=tuple(components),
        choices=_choices(setup, filled, memory),
        request=request,
        origins=filled.origins,
        geometry=filled.geometry,
        stages=planned_stages(match, request, filled.geometry),
        memory=memory.forecast,
        output=request_output(config, match, request, subject.inputs) if with_output else None,
        rejected_models=match.rejected,
        notes=(
            *location.loaded.notes, *subject.notes, *location.notes, *setup.notes, *filled.geometry.notes
        ),
        warnings=warnings,
        adapters=tuple(adapter.planned for adapter in setup.adaptation.adapters),
        experts=recognition.experts,
        sizes=match.spec.sizes(recognition, setup.task),
        plugins=location.versions,
    )  # fmt: skip


def versions(plugins: PluginSet) -> dict[str, str]:
    """Return the versions of the core and the loaded plugins, by distribution."""
    loaded = [plugin for plugin in plugins.plugins if plugin.state == "loaded" and plugin.dist is not None]
    return {"lightx2v-core": __version__, **{plugin.dist_name: plugin.version for plugin in loaded}}


def _choices(setup: Setup, filled: RequestPlan, memory: MemoryPlan) -> tuple[Choice, ...]:
    choices = [setup.attention.as_choice("attention"), filled.scheduler.as_choice("scheduler")]
    choices += _per_component("offloader", memory.offloaders)
    choices += _per_component("quantizer", chosen_quantizers(setup.quantization))
    if setup.adaptation.applier is not None:
        choices.append(setup.adaptation.applier.as_choice("lora_applier"))
    return tuple(choices)


def _per_component(kind: str, implementations: Mapping[str, Implementation[S]]) -> list[Choice]:
    """Return one choice if all components share it, else one for each."""
    choices = {name: implementation.as_choice(kind) for name, implementation in implementations.items()}
    if len({(choice.use, str(choice.options)) for choice in choices.values()}) <= 1:
        return list(choices.values())[:1]
    return [evolve(choice, kind=f"{kind} of {name}") for name, choice in choices.items()]


def _warnings(location: Location, setup: Setup, filled: RequestPlan, memory: MemoryPlan) -> tuple[str, ...]:
    return (
        *location.loaded.warnings,
        *location.registry.plugins.warnings,
        *checkpoint_warnings(setup.match, memory.forecast),
        *adapter_notes(setup.adaptation.adapters)[1],
        *_remarks(setup.match, filled.request),
    )


def _remarks(match: ModelMatch, request: Request) -> tuple[str, ...]:
    """Collect the model's remarks on the prompts, such as text that the encoder truncates."""
    assets = {name: match.components[name].assets for name in match.recognition.components}
    return tuple(match.spec.remarks(match.recognition, request, assets))
