"""Config + installed plugins + checkpoint headers + device -> ``Plan`` and the specs that carry it out.

Pure: nothing is written and no weight is read. Everything that can be wrong with a request is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, frozen

from lightx2v_core import __version__, device
from lightx2v_core.checkpoint import verify
from lightx2v_core.checkpoint.components import Component, locate, model_folder, read_component, read_config
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.errors import CheckpointError, ConfigError, PluginError, RequestError, suggestion
from lightx2v_core.output import planned_output
from lightx2v_core.plan import Choice, MemoryForecast, Plan, PlannedComponent
from lightx2v_core.plugins import PluginSet, Provided
from lightx2v_core.registry import Registry, Selection
from lightx2v_core.requests import Request
from lightx2v_core.specs import (
    AttentionSpec,
    BuildContext,
    CheckpointFacts,
    ComponentSpec,
    Geometry,
    ModelSpec,
    Recognition,
    WeightLoaderSpec,
)
from lightx2v_core.tensors import Header


@frozen(kw_only=True)
class Chosen:
    """A selected implementation and its structured options."""

    selection: Selection
    config: Any

    @property
    def spec(self) -> Any:
        return self.selection.chosen.spec


@frozen(kw_only=True)
class Resolved:
    """A plan, and what is needed to carry it out in this process."""

    plan: Plan
    loaded: LoadedConfig
    ctx: BuildContext
    recognition: Recognition
    model: Chosen
    attention: Chosen
    offloader: Chosen
    scheduler: Chosen
    components: Mapping[str, Component]
    registry: Registry


def resolve(loaded: LoadedConfig, plugins: PluginSet, *, with_output: bool = False) -> Resolved:
    """Resolve a configuration into a plan. ``RequestError`` says what is wrong, all of it where possible."""
    config = loaded.config
    registry = Registry(plugins)
    found_device, device_why = device.probe(config.device)
    dtype, dtype_why = _dtype(config, found_device)
    ctx = BuildContext(device=found_device, dtype=dtype)
    if config.model_path is None:
        raise RequestError("no model folder given; use --model-path DIR (or model_path in the configuration)")
    folder = model_folder(config.model_path)

    model, recognition, components, rejected = _recognise(config, registry, folder, ctx)
    spec: ModelSpec[Any] = model.spec
    task = _task(config, recognition)
    _check_inputs(config, spec, task)
    _refuse_unbuilt(config, registry, ctx)
    limits = _attention_limits(recognition, ctx)
    attention = _choose(
        registry, "attention", config.attention, ctx, loaded.origin("attention", "use"), limits
    )
    offloader = _choose(registry, "offloader", config.offloader, ctx, loaded.origin("offloader", "use"))
    request, geometry, origins = resolve_request(loaded, spec, recognition, task)
    section = config.scheduler or Section(use=(request.scheduler,))
    scheduler = _choose(registry, "scheduler", section, ctx, origins["scheduler"])
    needs = spec.memory(recognition, geometry, dtype, model.config)
    planned = tuple(
        PlannedComponent(
            name=name,
            summary=_component_spec(spec, name).summary,
            files=tuple(str(path) for path in components[name].files),
            rule=components[name].rule,
            tensors=len(components[name].header),
            parameters=components[name].header.parameters,
            stored=components[name].header.nbytes,
            precision=components[name].header.precision,
            weights=needs[name].weights,
            activations=needs[name].activations,
        )
        for name in recognition.components
    )
    memory = _forecast(planned, components, ctx)
    warnings = [*plugins.warnings, *_warnings(recognition, components, memory)]
    plan = Plan(
        model=model.selection.chosen.qualified,
        variant=recognition.variant,
        summary=recognition.summary,
        model_path=str(folder),
        task=task,
        device=found_device,
        device_why=device_why,
        dtype=dtype,
        dtype_why=dtype_why,
        components=planned,
        choices=tuple(
            _as_choice(kind, chosen)
            for kind, chosen in (("attention", attention), ("offloader", offloader), ("scheduler", scheduler))
        ),
        request=evolve(request, scheduler=scheduler.selection.name),
        origins=origins,
        geometry=geometry,
        memory=memory,
        output=planned_output(config.output, recognition.variant, request) if with_output else None,
        rejected_models=rejected,
        notes=tuple(recognition.notes),
        warnings=tuple(warnings),
        plugins={
            "lightx2v-core": __version__,
            **{p.dist_name: p.version for p in plugins.plugins if p.state == "loaded" and p.dist is not None},
        },
    )
    return Resolved(
        plan=plan,
        loaded=loaded,
        ctx=ctx,
        recognition=recognition,
        model=model,
        attention=attention,
        offloader=offloader,
        scheduler=scheduler,
        components=components,
        registry=registry,
    )


def resolve_request(
    loaded: LoadedConfig, spec: ModelSpec[Any], recognition: Recognition, task: str
) -> tuple[Request, Geometry, Mapping[str, str]]:
    """Fill what was not said with the official values of the variant, task and size."""
    config, sampling = loaded.config, loaded.config.sampling
    defaults = spec.defaults(recognition, task, sampling.size)
    origins: dict[str, str] = {}

    def value(name: str, given: Any, default: Any, *path: str) -> Any:
        origins[name] = loaded.origin(*path) if given is not None else f"default of {recognition.variant}"
        return default if given is None else given

    width, height = value("size", sampling.size, (defaults.width, defaults.height), "sampling", "size")
    frames = value("frames", sampling.frames, defaults.frames, "sampling", "frames")
    geometry = spec.geometry(recognition, width, height, frames)
    scheduler = config.scheduler.use[0] if config.scheduler else None
    request = Request(
        prompt=config.prompt or "",
        negative_prompt=value(
            "negative_prompt", config.negative_prompt, defaults.negative_prompt, "negative_prompt"
        ),
        width=geometry.width,
        height=geometry.height,
        frames=geometry.frames,
        fps=value("fps", sampling.fps, defaults.fps, "sampling", "fps"),
        steps=value("steps", sampling.steps, defaults.steps, "sampling", "steps"),
        shift=value("shift", sampling.shift, defaults.shift, "sampling", "shift"),
        guide_scale=value(
            "guide_scale", sampling.guide_scale, defaults.guide_scale, "sampling", "guide_scale"
        ),
        scheduler=value("scheduler", scheduler, defaults.scheduler, "scheduler"),
        seed=sampling.seed,
        batched_guidance=sampling.batched_guidance,
    )
    origins["seed"] = loaded.origin("sampling", "seed")
    origins["prompt"] = loaded.origin("prompt")
    return request, geometry, origins


def loader_for(registry: Registry, path: Path) -> Provided:
    """The weight loader of a file, by its suffix."""
    for item in registry.candidates("weight_loader"):
        assert isinstance(item.spec, WeightLoaderSpec)
        if path.suffix.lower() in item.spec.suffixes:
            return item
    known = sorted({s for item in registry.candidates("weight_loader") for s in item.spec.suffixes})  # type: ignore[attr-defined]
    raise CheckpointError(f"no weight loader is installed for {path.name}; known are {', '.join(known)}")


def structured_options(section: Section, registry: Registry, kind: str, chosen: Provided) -> Any:
    """The options of ``chosen`` as its config class. Options of every named alternative are checked too."""
    result = structure({}, chosen.spec.config)
    for name, options in section.options.items():
        if section.use != ("auto",) and name not in section.use:
            raise ConfigError(
                f"{kind}.options has {name!r}, which {kind}.use does not name"
                f" ({', '.join(section.use)}){suggestion(name, section.use)}"
            )
        item = registry.find(kind, name)
        value = structure(options, item.spec.config, path=f"$.{kind}.options[{name!r}]")
        if item is chosen:
            result = value
    return result


def _recognise(
    config: RunConfig, registry: Registry, folder: Path, ctx: BuildContext
) -> tuple[Chosen, Recognition, Mapping[str, Component], Mapping[str, str]]:
    """Ask the model plugins whose checkpoint this is. Exactly one must know it."""
    read = lru_cache(maxsize=None)(lambda path: _read_header(registry, path))
    names = config.model.use
    candidates = (
        list(registry.candidates("model"))
        if names == ("auto",)
        else [registry.find("model", n) for n in names]
    )
    if not candidates:
        absent = "".join(f"\n  not loaded: {p.name} ({p.reason})" for p in registry.plugins.not_loaded())
        raise PluginError(
            f'no model plugin is installed; for Wan2.1: pip install "lightx2v-core[wan21]"{absent}'
        )
    known: list[tuple[Provided, Recognition, Mapping[str, Component]]] = []
    rejected: dict[str, str] = {}
    broken: list[CheckpointError] = []
    for item in candidates:
        spec = item.spec
        assert isinstance(spec, ModelSpec)
        if reasons := item.reasons(ctx):
            rejected[item.qualified] = "; ".join(reasons)
            continue
        try:
            components = _locate(spec, config, folder, read)
            answer = _ask(spec, folder, components)
        except CheckpointError as exc:
            broken.append(exc)
            rejected[item.qualified] = str(exc)
            continue
        if isinstance(answer, Recognition):
            known.append((item, answer, components))
        else:
            rejected[item.qualified] = answer
    if len(known) > 1:
        choices = " or ".join(f"--model {item.qualified}" for item, _, _ in known)
        raise CheckpointError(f"{folder} is recognised by more than one model; say which: {choices}")
    if not known:
        if broken:
            raise broken[0]
        reasons_text = "\n".join(f"  {name}: {reason}" for name, reason in rejected.items())
        raise CheckpointError(f"no installed model knows {folder} ({_listing(folder)}):\n{reasons_text}")
    item, recognition, components = known[0]
    why = "asked for" if names != ("auto",) else "recognised by its tensors"
    chosen = Chosen(
        selection=Selection(chosen=item, why=why),
        config=structured_options(config.model, registry, "model", item),
    )
    _complete(chosen.spec, recognition, components, config, folder)
    return chosen, recognition, components, rejected


def _locate(
    spec: ModelSpec[Any], config: RunConfig, folder: Path, read: Callable[[Path], Header]
) -> Mapping[str, Component]:
    names = [part.name for part in spec.components]
    for name in config.components:
        if name not in names:
            raise CheckpointError(
                f"components.{name}: {spec.name} has no such component{suggestion(name, names)}; it has {', '.join(names)}"
            )
    components = {}
    for part in spec.components:
        override = config.components[part.name].path if part.name in config.components else None
        found = locate(part, folder, override)
        if found is not None:
            components[part.name] = read_component(part, folder, found, read)
    return components


def _ask(spec: ModelSpec[Any], folder: Path, components: Mapping[str, Component]) -> Recognition | str:
    main = spec.components[0]
    if main.name not in components:
        return f"no {main.summary} ({' or '.join(main.files)})"
    facts = CheckpointFacts(
        folder=folder,
        config=read_config(components[main.name].files[0].parent),
        headers={name: component.header for name, component in components.items()},
    )
    return spec.recognise(facts)


def _complete(
    spec: ModelSpec[Any],
    recognition: Recognition,
    components: Mapping[str, Component],
    config: RunConfig,
    folder: Path,
) -> None:
    """Everything the variant needs must be there, with the right tensors. All problems in one message."""
    found: list[str] = []
    for name in recognition.components:
        part = _component_spec(spec, name)
        if name not in components:
            found.append(
                f"{name}: no {part.summary} ({' or '.join(part.files)}); {part.hint or 'add it to the folder'}"
                f" or set components.{name}.path"
            )
            continue
        found += [
            f"{name}: {asset} is missing: {path}; {part.hint or 'add it to the folder'}"
            for asset, path in components[name].assets.items()
            if not path.exists()
        ]
        source = "config.json" if name == spec.components[0].name else "its own layout"
        found += verify.problems(name, components[name].header, recognition.expected[name], source)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise CheckpointError(
            f"{folder} ({recognition.variant}) cannot be run:\n{lines}\n  ({_listing(folder)})"
        )


def _component_spec(spec: ModelSpec[Any], name: str) -> ComponentSpec:
    return next(part for part in spec.components if part.name == name)


def _read_header(registry: Registry, path: Path) -> Header:
    spec = loader_for(registry, path).spec
    assert isinstance(spec, WeightLoaderSpec)
    return spec.read_header(path)


def _choose(
    registry: Registry,
    kind: str,
    section: Section,
    ctx: BuildContext,
    origin: str,
    limits: Callable[[Provided], Sequence[str]] = lambda _item: (),
) -> Chosen:
    selection = registry.select(kind, section.want, ctx, origin=origin, limits=limits)
    return Chosen(selection=selection, config=structured_options(section, registry, kind, selection.chosen))


def _attention_limits(recognition: Recognition, ctx: BuildContext) -> Callable[[Provided], Sequence[str]]:
    def limits(item: Provided) -> Sequence[str]:
        assert isinstance(item.spec, AttentionSpec)
        dims, found = item.spec.head_dims, []
        if dims is not None and recognition.head_dim not in dims:
            found.append(f"runs head dims {sorted(dims)}, the model has {recognition.head_dim}")
        if ctx.dtype not in item.spec.dtypes:
            found.append(f"runs {', '.join(sorted(item.spec.dtypes))}, not {ctx.dtype}")
        return found

    return limits


def _refuse_unbuilt(config: RunConfig, registry: Registry, ctx: BuildContext) -> None:
    """LoRA files and quantizers need an implementation; asking without one is an error, not a silence."""
    if config.loras:
        registry.select("lora_applier", config.lora_applier.want, ctx)
    if config.quantizer is not None:
        registry.select("quantizer", config.quantizer.want, ctx)
    for name, part in config.components.items():
        if part.quantizer is not None:
            registry.select("quantizer", part.quantizer.want, ctx)
        if part.offloader is not None:
            raise ConfigError(
                f"components.{name}.offloader: no offloader that works on one component is installed"
            )


def _task(config: RunConfig, recognition: Recognition) -> str:
    tasks = recognition.tasks
    if config.task is None and len(tasks) == 1:
        return tasks[0]
    if config.task is None:
        raise RequestError(f"{recognition.variant} does {', '.join(tasks)}; say which with --task")
    if config.task not in tasks:
        raise RequestError(
            f"{recognition.variant} does {', '.join(tasks)}, not {config.task!r}{suggestion(config.task, tasks)}"
        )
    return config.task


def _check_inputs(config: RunConfig, spec: ModelSpec[Any], task: str) -> None:
    """Inputs that the task does not take are refused; ignoring one would be a silent mistake."""
    given = {name for name, value in asdict(config.inputs).items() if value is not None}
    takes = spec.tasks.get(task, frozenset())
    if wrong := sorted(given - takes):
        what = ", ".join(sorted(takes)) if takes else "a prompt only"
        raise RequestError(f"task {task} of {spec.name} does not take {', '.join(wrong)}; it takes {what}")


def _dtype(config: RunConfig, found: Any) -> tuple[str, str]:
    if config.dtype != "auto":
        return config.dtype, "asked for"
    if found.kind == "cpu":
        return "float32", "auto: the fast and exact dtype of CPUs"
    if found.capability >= (8, 0):
        return "bfloat16", "auto: the dtype the models were trained in"
    return "float16", f"auto: {found.name} computes bfloat16 slowly"


def _as_choice(kind: str, chosen: Chosen) -> Choice:
    return Choice(
        kind=kind,
        use=chosen.selection.chosen.qualified,
        why=chosen.selection.why,
        rejected={item.name: item.reasons for item in chosen.selection.rejected},
        options=unstructure(chosen.config),
    )


def _forecast(
    planned: Sequence[PlannedComponent], components: Mapping[str, Component], ctx: BuildContext
) -> MemoryForecast:
    """Everything resident: all weights, and the activations of the hungriest phase."""
    weights = sum(part.weights for part in planned)
    peak = weights + max((part.activations for part in planned), default=0)
    largest = max(
        (info.nbytes for part in planned for info in components[part.name].header.tensors.values()), default=0
    )
    host = peak if ctx.device.kind == "cpu" else 2 * largest
    return MemoryForecast(
        device_weights=weights, device_peak=peak, host_peak=host, device_total=ctx.device.memory
    )


def _warnings(
    recognition: Recognition, components: Mapping[str, Component], memory: MemoryForecast
) -> list[str]:
    found = []
    for name in recognition.components:
        extra = verify.unused(components[name].header, recognition.expected[name])
        if extra:
            some = ", ".join(extra[:3])
            found.append(
                f"{name}: {len(extra)} tensors of the file have no place in the model, such as {some}"
            )
    if memory.impossible:
        found.append(
            f"the weights take {memory.device_weights / 2**30:.1f} GiB and the device has "
            f"{memory.device_total / 2**30:.1f} GiB: this will not fit without offloading or a smaller dtype"
        )
    elif 0 < memory.device_total < memory.device_peak:
        found.append(
            f"the forecast peak of {memory.device_peak / 2**30:.1f} GiB is more than the device has "
            f"({memory.device_total / 2**30:.1f} GiB): it may run out of memory"
        )
    return found


def _listing(folder: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it holds {', '.join(names[:12])}{more}"
