"""Resolution of configuration, installed plugins, checkpoint headers and device into a ``Plan``, in six steps.

Resolution has no side effects: it writes nothing and reads no weights. Every error in a request is reported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from lightx2v_core.checkpoint.folders import model_folder
from lightx2v_core.checkpoint.header_cache import ReadHeader
from lightx2v_core.checkpoint.listing import filesystem_errors
from lightx2v_core.config.keywords import request_config
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import RequestError
from lightx2v_core.plan import device, memory
from lightx2v_core.plan.bundled import with_bundled
from lightx2v_core.plan.leftovers import without_leftovers
from lightx2v_core.plan.lora_fit import adapter_notes
from lightx2v_core.plan.loras import adapted_model, resolve_adapters, select_applier
from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.plan.quantization import Quantization, choose_quantizers
from lightx2v_core.plan.recognize import ModelMatch, check_complete, loader_notes, passed_over, recognize
from lightx2v_core.plan.request import chosen_task, filled_request, task_inputs
from lightx2v_core.plan.resolution import (
    Adaptation,
    Location,
    MemoryPlan,
    RequestPlan,
    Resolution,
    Setup,
    Subject,
)
from lightx2v_core.plan.selection import (
    Prove,
    attention_objections,
    by_true_name,
    select,
    select_each,
    unproved,
)
from lightx2v_core.plan.workloads import workloads
from lightx2v_core.plan.writing import versions, write_plan
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import AttentionSpec, OffloaderSpec


@filesystem_errors()
def resolve(
    loaded: LoadedConfig,
    plugins: PluginSet,
    *,
    with_output: bool = False,
    read: ReadHeader | None = None,
    prove: Prove = unproved,
) -> Resolution:
    """Resolve a configuration into a plan.

    ``read`` caches headers between calls. Kernels that fail ``prove`` on this machine are not selected. Raises
    ``RequestError`` that lists every problem where possible.
    """
    location = locate(loaded, Registry(plugins))
    subject = identify(location, read)
    setup = set_up(location, subject, prove)
    return _from_request(location, subject, setup, with_output=with_output)


def _from_request(
    location: Location,
    subject: Subject,
    setup: Setup,
    *,
    with_output: bool = False,
    placement: MemoryPlan | None = None,
) -> Resolution:
    """Run the steps that depend on the request. ``placement`` is the memory plan of a model that is already loaded."""
    request = fill_request(location, subject, setup)
    allotted = allot_memory(location, setup, request, placement)
    plan = write_plan(location, subject, setup, request, allotted, with_output=with_output)
    return Resolution(
        location=location, subject=subject, setup=setup, request=request, memory=allotted, plan=plan
    )


def locate(loaded: LoadedConfig, registry: Registry) -> Location:
    """Replace names by local files, and determine the model folder and the device."""
    loaded, bundled_notes = with_bundled(loaded, registry)
    loaded, alias_notes = by_true_name(loaded, registry)
    loaded = without_leftovers(loaded, registry)
    config = loaded.config
    where, device_why = device.probe(config.device)
    dtype, dtype_why = device.compute_dtype(config.dtype, where)
    if config.model_path is None:
        raise RequestError("no model folder given; use --model-path DIR (or model_path in the configuration)")
    return Location(
        loaded=loaded,
        registry=registry,
        folder=model_folder(config.model_path),
        ctx=BuildContext(device=where, dtype=dtype, speeds=memory.speeds(config.memory, where)),
        device_why=device_why,
        dtype_why=dtype_why,
        notes=(*bundled_notes, *alias_notes),
        versions=versions(registry.plugins),
    )


def identify(location: Location, read: ReadHeader | None = None) -> Subject:
    """Recognize the model, and check that it is complete and supports the task."""
    loaded, config = location.loaded, location.loaded.config
    match = recognize(config, location.registry, location.folder, location.ctx, read, loaded)
    task = chosen_task(config, match.recognition)
    inputs = task_inputs(config, match.spec, task, {})
    check_complete(match, location.folder)
    return Subject(match=match, task=task, inputs=inputs, notes=passed_over(loaded, match.spec))


def set_up(location: Location, subject: Subject, prove: Prove = unproved) -> Setup:
    """Select the quantizers, the LoRA files with their applier, and the attention kernel."""
    loaded, registry, ctx, match = location.loaded, location.registry, location.ctx, subject.match
    parts = [match.part(name) for name in match.recognition.components]
    quantization = choose_quantizers(
        registry, loaded, parts, match.components, match.recognition.expected, ctx, prove
    )
    adaptation = adapt(location, match, quantization, prove)
    recognition = adaptation.match.recognition
    attention = select(
        registry,
        AttentionSpec,
        loaded.config.attention,
        ctx,
        origin=loaded.origin("attention", "use"),
        objections=attention_objections(recognition, ctx),
        prove=prove,
        uses=lambda _spec, _options: (KernelUse(head_dim=recognition.head_dim),),
        loaded=loaded,
    )
    return Setup(
        task=subject.task,
        adaptation=adaptation,
        attention=attention,
        quantization=quantization,
        notes=_setup_notes(registry, adaptation, quantization),
    )


def adapt(
    location: Location, match: ModelMatch, quantization: Mapping[str, Quantization], prove: Prove = unproved
) -> Adaptation:
    """Fit LoRA files to a model, and select the applier."""
    loaded, registry, config = location.loaded, location.registry, location.loaded.config
    adapters = resolve_adapters(config.loras, match, registry, location.folder, strict=config.strict_lora)
    adapted = adapted_model(match, adapters)
    applier = select_applier(registry, loaded, location.ctx, adapters, quantization, prove)
    return Adaptation(match=adapted, adapters=adapters, applier=applier)


def fill_request(location: Location, subject: Subject, setup: Setup) -> RequestPlan:
    """Fill in the values that a request leaves open, and select the scheduler."""
    request, geometry, origins, scheduler = filled_request(
        location.loaded, location.registry, setup.match, location.ctx, setup.task, subject.inputs
    )
    return RequestPlan(request=request, geometry=geometry, origins=origins, scheduler=scheduler)


def allot_memory(
    location: Location, setup: Setup, request: RequestPlan, placement: MemoryPlan | None = None
) -> MemoryPlan:
    """Select the offloader of each component, and forecast memory use."""
    loaded, registry, ctx, match = location.loaded, location.registry, location.ctx, setup.match
    if placement is None:
        names = memory.named(loaded, match)
        parts = [match.part(name) for name in match.recognition.components if name in names]
        offloaders = select_each(registry, OffloaderSpec, loaded, parts, ctx)
        loads = workloads(setup, request, ctx)
        offloaders = memory.choose_offloaders(
            registry, loaded, match, loads, offloaders, ctx, request.request.steps
        )
    else:
        offloaders, loads = placement.offloaders, workloads(setup, request, ctx)
    within = memory.allowed(loaded, match, ctx.device)
    budgets = memory.budgets(offloaders, loads, ctx, within)
    forecast = memory.forecast(offloaders, loads, ctx, within, budgets)
    return MemoryPlan(workloads=loads, offloaders=offloaders, budgets=budgets, forecast=forecast)


def with_request(resolution: Resolution, loaded: LoadedConfig, in_memory: Mapping[str, object]) -> Resolution:
    """Resolve another request for the same loaded model. ``in_memory`` holds inputs given as objects, not as paths."""
    location = evolve(resolution.location, loaded=without_leftovers(loaded, resolution.location.registry))
    subject = resolution.subject
    inputs = task_inputs(location.loaded.config, subject.match.spec, subject.task, in_memory)
    return _from_request(
        location, evolve(subject, inputs=inputs), resolution.setup, placement=resolution.memory
    )


def with_adapters(resolution: Resolution, loras: Sequence[LoraConfig]) -> Resolution:
    """Resolve other LoRA files for the same loaded model, with the defaults that they bring."""
    loaded, setup, subject = resolution.location.loaded, resolution.setup, resolution.subject
    loaded = evolve(loaded, config=evolve(loaded.config, loras=tuple(loras)))
    location = evolve(resolution.location, loaded=loaded)
    adaptation = adapt(location, subject.match, setup.quantization)
    if adaptation.applier is None:  # the applier that merged the files also removes them
        adaptation = evolve(adaptation, applier=setup.adaptation.applier)
    notes = _setup_notes(location.registry, adaptation, setup.quantization)
    setup = evolve(setup, adaptation=adaptation, notes=notes)
    return with_request(evolve(resolution, location=location, setup=setup), loaded, {})


def with_proof(resolution: Resolution, prove: Prove) -> Resolution:
    """Repeat the selection of kernels without those that fail ``prove`` on this machine."""
    location, subject = resolution.location, resolution.subject
    setup = set_up(location, subject, prove)
    return _from_request(location, subject, setup, with_output=resolution.plan.output is not None)


def with_warnings(resolution: Resolution, warnings: Sequence[str]) -> Resolution:
    """Add warnings to this plan and to those of later requests."""
    location, plan = resolution.location, resolution.plan
    loaded = evolve(location.loaded, warnings=(*location.loaded.warnings, *warnings))
    plan = evolve(plan, warnings=(*plan.warnings, *warnings))
    return evolve(resolution, location=evolve(location, loaded=loaded), plan=plan)


def with_prompt(resolution: Resolution, prompt: str) -> Resolution:
    """Plan the same request with another prompt."""
    location, request = resolution.location, resolution.request
    config = evolve(location.loaded.config, prompt=prompt)
    location = evolve(location, loaded=evolve(location.loaded, config=config))
    request = evolve(request, request=evolve(request.request, prompt=prompt))
    plan = write_plan(
        location,
        resolution.subject,
        resolution.setup,
        request,
        resolution.memory,
        with_output=resolution.plan.output is not None,
    )
    return evolve(resolution, location=location, request=request, plan=plan)


def resolve_job(resolution: Resolution, request: Mapping[str, object]) -> Resolution:
    """Resolve the values of one request for the same loaded model; keys as in Python, such as ``prompt``."""
    loaded, in_memory = request_config(resolution.location.loaded, request)
    return with_request(resolution, loaded, in_memory)


@filesystem_errors()
def runnable(loaded: LoadedConfig, plugins: PluginSet, read: ReadHeader) -> ModelMatch:
    """Recognize the model of a folder, and check that it is complete, for any task.

    ``read`` caches headers between calls. Raises ``LightX2VError`` when no complete model is found.
    """
    config, registry = loaded.config, Registry(plugins)
    ctx = BuildContext(device=device.probe(config.device)[0])
    assert config.model_path is not None
    folder = model_folder(config.model_path)
    match = recognize(config, registry, folder, ctx, read)
    check_complete(match, folder)
    return match


def check_ready(resolution: Resolution) -> None:
    """Raise ``RequestError`` if the request lacks a prompt or an input of its task: fine for a plan, not for a run."""
    loaded, subject = resolution.location.loaded, resolution.subject
    task = subject.match.spec.tasks[subject.task]
    if missing := sorted(task.required - set(subject.inputs)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise RequestError(f"task {subject.task} needs {', '.join(missing)}; use {options}")
    if loaded.lacking:
        raise RequestError("\n".join(loaded.lacking))
    if loaded.config.prompt is None and not resolution.plan.request.prompt:
        raise RequestError("no prompt given; use --prompt TEXT")


def _setup_notes(
    registry: Registry, adaptation: Adaptation, quantization: Mapping[str, Quantization]
) -> tuple[str, ...]:
    match = adaptation.match
    return (
        *match.recognition.notes,
        *(note for choice in quantization.values() for note in choice.notes),
        *adapter_notes(adaptation.adapters)[0],
        *loader_notes(registry, match),
    )
