"""Config + installed plugins + checkpoint headers + device -> ``Plan`` and the specs that carry it out.

Pure: nothing is written and no weight is read. Everything that can be wrong with a request is said here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from lightx2v_core.checkpoint.folders import model_folder
from lightx2v_core.checkpoint.header_cache import ReadHeader
from lightx2v_core.checkpoint.listing import filesystem_errors
from lightx2v_core.config.keywords import request_config
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import LoraConfig, RunConfig
from lightx2v_core.discovery.plugins import CORE, PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginFault, RequestError
from lightx2v_core.plan import device, memory
from lightx2v_core.plan.bundled import with_embedded
from lightx2v_core.plan.checkpoints import checkpoint_warnings, planned_component
from lightx2v_core.plan.leftovers import without_leftovers
from lightx2v_core.plan.lora_fit import AdapterFit, adapter_notes
from lightx2v_core.plan.loras import check_applier, resolve_adapters
from lightx2v_core.plan.plan import KernelUse, MemoryForecast, Plan, PlannedComponent
from lightx2v_core.plan.quantization import Quantization, choose_quantizers, chosen_quantizers, needs_of
from lightx2v_core.plan.recognize import ModelMatch, check_complete, loader_for, passed_over, recognize
from lightx2v_core.plan.request import (
    chosen_task,
    filled_request,
    planned_stages,
    request_output,
    task_inputs,
)
from lightx2v_core.plan.selection import (
    Implementation,
    Prove,
    attention_objections,
    by_true_name,
    select,
    select_each,
    unproved,
)
from lightx2v_core.spec.context import Budget, BuildContext, Device
from lightx2v_core.spec.memory import Workload
from lightx2v_core.spec.recognition import Geometry, Recognition
from lightx2v_core.spec.request import Request
from lightx2v_core.spec.specs import AttentionSpec, LoraApplierSpec, OffloaderSpec, SchedulerSpec, Spec
from lightx2v_core.spec.version import __version__


@frozen(kw_only=True)
class Resolution:
    """A plan, and what is needed to carry it out in this process."""

    plan: Plan
    loaded: LoadedConfig
    ctx: BuildContext
    registry: Registry
    found: ModelMatch
    attention: Implementation[AttentionSpec]
    scheduler: Implementation[SchedulerSpec]
    #: component -> choice
    offloaders: Mapping[str, Implementation[OffloaderSpec]]
    budgets: Mapping[str, Budget]
    quantized: Mapping[str, Quantization]
    #: None when there is nothing to apply, and nobody asked for one
    lora_applier: Implementation[LoraApplierSpec] | None
    adapters: tuple[AdapterFit, ...]
    #: the model without its LoRA files
    plain: Recognition
    #: what the task starts from: paths, or images and tensors given in memory
    inputs: Mapping[str, Any]
    #: what of the plan's warnings is about its prompts
    remarks: tuple[str, ...]


@filesystem_errors()
def resolve(
    loaded: LoadedConfig,
    plugins: PluginSet,
    *,
    with_output: bool = False,
    read: ReadHeader | None = None,
    prove: Prove = unproved,
) -> Resolution:
    """Resolve a configuration into a plan. ``RequestError`` says what is wrong, all of it where possible. ``read``
    remembers headers from one call to the next; kernels that ``prove`` finds wrong on this machine are not chosen."""
    registry = Registry(plugins)
    loaded, embedded_notes = with_embedded(loaded, registry)
    loaded, alias_notes = by_true_name(loaded, registry)
    loaded = without_leftovers(loaded, registry)
    config = loaded.config
    where, device_why = device.probe(config.device)
    dtype, dtype_why = _dtype(config, where)
    ctx = BuildContext(device=where, dtype=dtype, speeds=memory.speeds(config.memory, where))
    if config.model_path is None:
        raise RequestError("no model folder given; use --model-path DIR (or model_path in the configuration)")
    folder = model_folder(config.model_path)
    found = recognize(config, registry, folder, ctx, read, loaded)
    loaded = evolve(loaded, notes=(*loaded.notes, *passed_over(loaded, found.spec)))
    recognition = found.recognition
    task = chosen_task(config, recognition)
    inputs = task_inputs(config, found.spec, task, {})

    parts = [found.part(name) for name in recognition.components]
    check_complete(found, folder)
    quantized = choose_quantizers(registry, loaded, parts, found.components, recognition.expected, ctx, prove)
    quantizer_notes = [note for item in quantized.values() for note in item.notes]
    adapters = resolve_adapters(config.loras, found, registry, folder, strict=config.strict_lora)
    plain, found = recognition, _with_loras(found, recognition, adapters)
    recognition = found.recognition
    origin, lora_applier = loaded.origin("lora_applier", "use"), None
    if adapters or origin != "default":
        section = config.lora_applier
        lora_applier = select(
            registry, LoraApplierSpec, section, ctx, origin=origin, prove=prove, loaded=loaded
        )
        check_applier(adapters, lora_applier, quantized)
    lora_notes, lora_warnings = adapter_notes(adapters)
    attention = select(
        registry,
        AttentionSpec,
        config.attention,
        ctx,
        origin=loaded.origin("attention", "use"),
        objections=attention_objections(recognition, ctx),
        prove=prove,
        uses=lambda _spec, _options: (KernelUse(head_dim=recognition.head_dim),),
        loaded=loaded,
    )
    request, geometry, origins, scheduler = filled_request(loaded, registry, found, ctx, task, inputs)
    named = [part for part in parts if part.name in memory.named(loaded, found)]
    offloaders = select_each(registry, OffloaderSpec, loaded, named, ctx)
    changed = _changed(adapters, lora_applier, quantized)
    loads = _workloads(found, geometry, request, ctx, quantized, changed)
    loads = _beside(loads, adapters, lora_applier)
    offloaders = memory.choose_offloaders(registry, loaded, found, loads, offloaders, ctx, request.steps)
    components, needed, warnings = _needs(found, loads, ctx, plugins, offloaders, loaded)
    choices = [attention.as_choice("attention"), scheduler.as_choice("scheduler")]
    choices += _per_component("offloader", offloaders) + _per_component(
        "quantizer", chosen_quantizers(quantized)
    )
    if lora_applier is not None:
        choices.append(lora_applier.as_choice("lora_applier"))
    remarks = _remarks(found, request)
    plan = Plan(
        model=found.model.selection.chosen.qualified,
        variant=recognition.variant,
        summary=recognition.summary,
        model_path=str(folder),
        task=task,
        device=where,
        device_why=device_why,
        dtype=dtype,
        dtype_why=dtype_why,
        components=components,
        choices=tuple(choices),
        request=request,
        origins=origins,
        geometry=geometry,
        stages=planned_stages(found, request, geometry),
        memory=needed,
        output=request_output(config, found, request, inputs) if with_output else None,
        rejected_models=found.rejected,
        notes=(
            *loaded.notes,
            *embedded_notes,
            *alias_notes,
            *recognition.notes,
            *quantizer_notes,
            *lora_notes,
            *_loader_notes(found, registry),
            *geometry.notes,
        ),
        warnings=(*loaded.warnings, *warnings, *lora_warnings, *remarks),
        adapters=tuple(item.planned for item in adapters),
        experts=recognition.experts,
        sizes=found.spec.sizes(recognition, task),
        plugins={
            "lightx2v-core": __version__,
            **{p.dist_name: p.version for p in plugins.plugins if p.state == "loaded" and p.dist is not None},
        },
    )
    return Resolution(
        plan=plan,
        loaded=loaded,
        ctx=ctx,
        registry=registry,
        found=found,
        attention=attention,
        scheduler=scheduler,
        offloaders=offloaders,
        budgets=memory.budgets(offloaders, loads, ctx, memory.allowed(loaded, found, where)),
        quantized=quantized,
        lora_applier=lora_applier,
        adapters=adapters,
        plain=plain,
        inputs=inputs,
        remarks=remarks,
    )


def _beside(
    loads: Mapping[str, Workload],
    adapters: Sequence[AdapterFit],
    applier: Implementation[LoraApplierSpec] | None,
) -> dict[str, Workload]:
    """Workloads with the adapters that stay on the device whatever is at work there."""
    extra = sum(item.planned.bytes for item in adapters) if applier and applier.spec.resident else 0
    return {name: evolve(load, activations=load.activations + extra) for name, load in loads.items()}


def _with_loras(found: ModelMatch, plain: Recognition, adapters: Sequence[AdapterFit]) -> ModelMatch:
    """The model with its LoRA files, which may bring other defaults."""
    names: dict[str, list[str]] = {}
    for item in adapters:
        if item.planned.strength > 0:
            names.setdefault(item.planned.component, []).append(Path(item.planned.path).name)
    return evolve(found, recognition=found.spec.with_loras(plain, names) if names else plain)


@filesystem_errors()
def runnable(loaded: LoadedConfig, plugins: PluginSet, read: ReadHeader) -> ModelMatch:
    """The model of a folder, complete, whatever task is asked of it. ``LightX2VError`` says why there is none. ``read``
    remembers headers from one call to the next."""
    config, registry = loaded.config, Registry(plugins)
    ctx = BuildContext(device=device.probe(config.device)[0])
    assert config.model_path is not None
    folder = model_folder(config.model_path)
    found = recognize(config, registry, folder, ctx, read)
    check_complete(found, folder)
    return found


def with_request(resolved: Resolution, loaded: LoadedConfig, in_memory: Mapping[str, Any]) -> Resolution:
    """The same loaded model with another request: only what a request decides is resolved again. ``in_memory`` holds
    inputs that are no paths."""
    found, plan = resolved.found, resolved.plan
    loaded = without_leftovers(loaded, resolved.registry)
    inputs = task_inputs(loaded.config, found.spec, plan.task, in_memory)
    request, geometry, origins, scheduler = filled_request(
        loaded, resolved.registry, found, resolved.ctx, plan.task, inputs
    )
    changed = _changed(resolved.adapters, resolved.lora_applier, resolved.quantized)
    loads = _workloads(found, geometry, request, resolved.ctx, resolved.quantized, changed)
    loads = _beside(loads, resolved.adapters, resolved.lora_applier)
    components, needed, warnings = _needs(
        found, loads, resolved.ctx, resolved.registry.plugins, resolved.offloaders, loaded
    )
    remarks = _remarks(found, request)
    choices = [scheduler.as_choice("scheduler") if c.kind == "scheduler" else c for c in plan.choices]
    plan = evolve(
        plan,
        request=request,
        geometry=geometry,
        stages=planned_stages(found, request, geometry),
        origins=origins,
        components=components,
        memory=needed,
        notes=(*(note for note in plan.notes if note not in plan.geometry.notes), *geometry.notes),
        warnings=(
            *loaded.warnings,
            *warnings,
            *adapter_notes(resolved.adapters)[1],
            *remarks,
        ),
        choices=tuple(choices),
        output=None,
    )
    return evolve(resolved, plan=plan, loaded=loaded, scheduler=scheduler, inputs=inputs, remarks=remarks)


def with_prompt(resolved: Resolution, prompt: str) -> Resolution:
    """The same request with another prompt: nothing else depends on it, but what is said of it."""
    plan, loaded = resolved.plan, resolved.loaded
    request = evolve(plan.request, prompt=prompt)
    remarks = _remarks(resolved.found, request)
    warnings = (*(w for w in plan.warnings if w not in resolved.remarks), *remarks)
    return evolve(
        resolved,
        plan=evolve(plan, request=request, warnings=warnings),
        loaded=evolve(loaded, config=evolve(loaded.config, prompt=prompt)),
        remarks=remarks,
    )


def _remarks(found: ModelMatch, request: Request) -> tuple[str, ...]:
    """What of the prompts is not seen."""
    assets = {name: found.components[name].assets for name in found.recognition.components}
    return tuple(found.spec.remarks(found.recognition, request, assets))


def resolve_job(resolved: Resolution, request: Mapping[str, Any]) -> Resolution:
    """The same loaded model with the values of one request, named as in Python: ``prompt``, ``size``, ``seed``."""
    loaded, in_memory = request_config(resolved.loaded, request)
    return with_request(resolved, loaded, in_memory)


def check_ready(resolved: Resolution) -> None:
    """``RequestError`` when the request lacks a prompt or an input of its task: fine for a plan, not for a run."""
    task = resolved.found.spec.tasks[resolved.plan.task]
    if missing := sorted(task.required - set(resolved.inputs)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise RequestError(f"task {resolved.plan.task} needs {', '.join(missing)}; use {options}")
    if resolved.loaded.lacking:
        raise RequestError("\n".join(resolved.loaded.lacking))
    if resolved.loaded.config.prompt is None and not resolved.plan.request.prompt:
        raise RequestError("no prompt given; use --prompt TEXT")


def _workloads(
    found: ModelMatch,
    geometry: Geometry,
    request: Request,
    ctx: BuildContext,
    quantized: Mapping[str, Quantization],
    changed: frozenset[str],
) -> Mapping[str, Workload]:
    plain = found.spec.memory(found.recognition, geometry, ctx.dtype, found.model.config)
    if lacking := sorted(set(found.recognition.components) - set(plain)):
        raise PluginFault(
            f"model {found.spec.name} forecasts no memory for {', '.join(lacking)}: this is a mistake of its plugin"
        )
    needs = {name: needs_of(quantized[name], need, ctx.dtype) for name, need in plain.items()}
    return memory.workloads(found, needs, geometry, request, ctx, changed)


def _changed(
    adapters: Sequence[AdapterFit],
    applier: Implementation[LoraApplierSpec] | None,
    quantized: Mapping[str, Quantization],
) -> frozenset[str]:
    """The components whose weights are computed from what is stored: merged, or quantized on load."""
    merged = {item.planned.component for item in adapters} if applier and not applier.spec.resident else set()
    return frozenset(merged | {name for name, item in quantized.items() if item.made})


def _needs(
    found: ModelMatch,
    loads: Mapping[str, Workload],
    ctx: BuildContext,
    plugins: PluginSet,
    offloaders: Mapping[str, Implementation[OffloaderSpec]],
    loaded: LoadedConfig,
) -> tuple[tuple[PlannedComponent, ...], MemoryForecast, tuple[str, ...]]:
    """Each component with its forecast, what they need together, and what to warn of."""
    components = tuple(
        planned_component(found, name, loads[name], loaded) for name in found.recognition.components
    )
    needed = memory.forecast(offloaders, loads, ctx, memory.allowed(loaded, found, ctx.device))
    return components, needed, (*plugins.warnings, *checkpoint_warnings(found, needed))


def _loader_notes(found: ModelMatch, registry: Registry) -> list[str]:
    """Who reads the files, where it is not the core."""
    notes = []
    for suffix, path in {c.files[0].suffix: c.files[0] for c in found.components.values()}.items():
        item = loader_for(registry, path)
        if item.plugin != CORE:
            notes.append(f"{suffix} files are read by {item.qualified}, which has the highest priority")
    return notes


def _per_component(kind: str, chosen: Mapping[str, Implementation[Spec]]) -> list[Any]:
    """One line when all components share a choice, else one for each."""
    choices = {name: item.as_choice(kind) for name, item in chosen.items()}
    if len({(choice.use, str(choice.options)) for choice in choices.values()}) <= 1:
        return list(choices.values())[:1]
    return [evolve(choice, kind=f"{kind} of {name}") for name, choice in choices.items()]


def _dtype(config: RunConfig, where: Device) -> tuple[str, str]:
    if config.dtype != "auto":
        return config.dtype, "asked for"
    if where.kind == "cpu":
        return "float32", "auto: the fast and exact dtype of CPUs"
    if where.capability >= (8, 0):
        return "bfloat16", "auto: the dtype the models were trained in"
    return "float16", f"auto: {where.name} computes bfloat16 slowly"


def with_adapters(resolved: Resolution, loras: Sequence[LoraConfig]) -> Resolution:
    """The same loaded model with other LoRA files, and the defaults that these bring."""
    registry, plan, config = resolved.registry, resolved.plan, resolved.loaded.config
    adapters = resolve_adapters(
        loras, resolved.found, registry, Path(plan.model_path), strict=config.strict_lora
    )
    applier, choices = resolved.lora_applier, plan.choices
    if applier is None:
        origin = resolved.loaded.origin("lora_applier", "use")
        applier = select(registry, LoraApplierSpec, config.lora_applier, resolved.ctx, origin=origin)
        choices = (*choices, applier.as_choice("lora_applier"))
    check_applier(adapters, applier, resolved.quantized)
    found = _with_loras(resolved.found, resolved.plain, adapters)
    before = {*resolved.found.recognition.notes, *adapter_notes(resolved.adapters)[0]}
    notes = [*found.recognition.notes, *adapter_notes(adapters)[0]]
    plan = evolve(
        plan,
        choices=choices,
        notes=(*(note for note in plan.notes if note not in before), *notes),
        adapters=tuple(item.planned for item in adapters),
    )
    loaded = evolve(resolved.loaded, config=evolve(config, loras=tuple(loras)))
    resolved = evolve(resolved, plan=plan, lora_applier=applier, adapters=adapters, found=found)
    return with_request(resolved, loaded, {})
