"""The options that the page has for a model folder. Each is planned, so that nothing is offered that would be refused.

Everything here comes from headers; no weight is read and no torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from lightx2v_core.api import (
    Inspection,
    LightX2VError,
    Plan,
    Planner,
    PluginSet,
    RequestError,
    inspect,
    missing,
)

Config = Mapping[str, Any]

#: kinds that the page lets users choose, and whose absent implementations it names
_SELECTABLE_KINDS = ("model", "attention", "quantizer", "offloader")
#: how a component is called on the page
_COMPONENTS = {"dit": "Video network", "text_encoder": "Text encoder", "image_encoder": "Image encoder"}
_AUTO = "auto"
#: a choice that leaves things as they are
AS_IS = ""


@frozen(kw_only=True)
class Option:
    """Something that can be chosen: ``config`` is the part of a configuration that chooses it."""

    key: str
    label: str
    config: Config = field(factory=dict)


@frozen(kw_only=True)
class LoraFile:
    """A LoRA file that has an effect on the folder's network; ``coverage`` says how much of it."""

    path: str
    name: str
    coverage: str


@frozen(kw_only=True)
class ModelSource:
    """Where a model comes from: the folder that the page was started with or a user named, and what applies to every
    plan of it."""

    folder: str
    task: str | None = None
    #: configuration below everything that is chosen on the page
    base: Config = field(factory=dict)
    #: files, and folders of files, to look for LoRA files besides the model's folder
    loras: tuple[str, ...] = ()


@frozen(kw_only=True)
class FolderOptions:
    """Everything that can be asked of a folder, with the plan of what happens when nothing is."""

    source: ModelSource
    plan: Plan
    tasks: tuple[str, ...]
    #: inputs that the task needs, and that it takes besides
    required: tuple[str, ...]
    optional: tuple[str, ...]
    #: component -> precisions; the first one is what happens when nothing is said
    precisions: Mapping[str, tuple[Option, ...]]
    attention: tuple[Option, ...]
    schedulers: tuple[Option, ...]
    offloaders: tuple[Option, ...]
    #: what switches the tiny VAE on; None when there is none
    tiny_vae: Option | None
    loras: tuple[LoraFile, ...]
    #: prompts that the model understands, where it knows few
    examples: tuple[str, ...]
    #: what cannot be chosen here and why, and which distribution brings what is not installed
    unusable: tuple[str, ...]
    missing: tuple[str, ...]


def merge_configs(*configs: Config) -> dict[str, Any]:
    """Configurations over one another; objects are merged key by key."""
    merged: dict[str, Any] = {}
    for config in configs:
        for key, value in config.items():
            below = merged.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                merged[key] = merge_configs(below, value)
            else:
                merged[key] = value
    return merged


def find_options(source: ModelSource, plugins: PluginSet) -> FolderOptions:
    """Find the options of a model. ``RequestError`` (and its kinds) when nothing can be run from it."""
    if not source.folder.strip():
        raise RequestError("no model folder is given")
    folder = source.folder.strip()
    inspection, planner = inspect(folder, plugins), Planner(plugins)
    tasks = tuple(dict.fromkeys(run.task for run in inspection.runnable))
    if not tasks:  # planning says why, in the words of the command line
        planner.plan(folder, config=source.base, **_task(source.task))
        raise RequestError("; ".join(inspection.obstacles) or f"nothing can be run from {source.folder!r}")
    source = evolve(source, folder=folder, task=source.task or tasks[0])
    plan = planner.plan(folder, config=source.base, **_task(source.task))
    trial = _TrialPlanner(source, plugins, planner)
    required, optional = _inputs(plan, plugins)
    precisions = {
        component: options
        for component in _quantizable_components(plan, inspection)
        if len(options := _precisions(component, inspection, trial)) > 1
    }
    attention = trial.usable(
        _implementations(plugins, "attention", "attention", first=_automatic_attention(plan))
    )
    schedulers = trial.usable(_implementations(plugins, "scheduler", "scheduler"))
    automatic = Option(key=_AUTO, label="automatic: the fastest that fits", config={"offloader": _AUTO})
    offloaders = trial.usable(_implementations(plugins, "offloader", "offloader", first=automatic))
    tiny = trial.usable([Option(key="tiny_vae", label="", config=_tiny_vae_config())])
    return FolderOptions(
        source=source,
        plan=plan,
        tasks=tasks,
        required=required,
        optional=optional,
        precisions=precisions,
        attention=attention,
        schedulers=schedulers,
        offloaders=offloaders,
        tiny_vae=tiny[0] if tiny else None,
        loras=tuple(_loras(source, inspection, trial)),
        examples=_examples(folder, plugins),
        unusable=tuple(dict.fromkeys(trial.refused)),
        missing=tuple(
            line
            for kind in _SELECTABLE_KINDS
            for line in missing(kind, [provided.spec.name for provided in plugins.provided(kind)])
        ),
    )


def component_label(component: str) -> str:
    """How a component is called on the page."""
    return _COMPONENTS.get(component, component.replace("_", " ").capitalize())


class _TrialPlanner:
    """Plans a model with something chosen, and keeps why it was refused."""

    def __init__(self, source: ModelSource, plugins: PluginSet, planner: Planner) -> None:
        self._source, self.plugins, self._planner = source, plugins, planner
        self.refused: list[str] = []

    def plan(self, config: Config) -> Plan:
        """The plan with ``config`` over that of the source."""
        return self._planner.plan(
            self._source.folder, config=merge_configs(self._source.base, config), **_task(self._source.task)
        )

    def usable(self, options: Iterable[Option]) -> tuple[Option, ...]:
        """The options that can be planned; why the others cannot is kept when it is of interest."""
        usable = []
        for option in options:
            try:
                self.plan(option.config)
                usable.append(option)
            except LightX2VError as exc:
                if option.label:
                    self.refused.append(f"{option.label}: {_reason(exc)}")
        return tuple(usable)


def _task(task: str | None) -> dict[str, Any]:
    return {} if task is None else {"task": task}


def _reason(exc: LightX2VError) -> str:
    """The reason in a refusal: of a selection the line about the candidate."""
    lines = [line.strip() for line in str(exc).splitlines()]
    return lines[1] if len(lines) > 1 and lines[0].startswith("no usable") else lines[0]


def _inputs(plan: Plan, plugins: PluginSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the task needs, and what it takes besides, by name."""
    spec: Any = next(model.spec for model in plugins.provided("model") if model.qualified == plan.model)
    task = spec.tasks[plan.task]
    return tuple(sorted(task.required)), tuple(sorted(task.optional))


def _quantizable_components(plan: Plan, inspection: Inspection) -> list[str]:
    """The components whose precision can be chosen: the network (experts together) and the encoders."""
    networks = {report.component for report in inspection.components if report.variants}
    encoders = [component.name for component in plan.components if component.name in _COMPONENTS]
    return list(dict.fromkeys([*sorted(networks), *encoders]))


def _precisions(component: str, inspection: Inspection, trial: _TrialPlanner) -> tuple[Option, ...]:
    """What a component can be computed in: as its files are, files of another precision, or quantized on load."""
    reports = [report for report in inspection.components if report.component == component]
    stored = {report.scheme.partition("-")[0] or "original": report for report in reports}
    options = [Option(key=AS_IS, label="as stored" + _stored_label(trial.plan({}), component))]
    if len(stored) > 1:
        for name, report in sorted(stored.items()):
            description = (
                f"{report.precision} file" if name == "original" else f"{name} file ({report.scheme})"
            )
            config = {"components": {component: {"precision": name}}}
            options.append(Option(key=name, label=description, config=config))
    for quantizer in trial.plugins.provided("quantizer"):
        spec: Any = quantizer.spec
        scheme = None if spec.makes is None else spec.makes(spec.config())
        if scheme is not None and "original" in stored:
            plain = {"precision": "original"} if len(stored) > 1 else {}
            setting = {**plain, "quantizer": quantizer.qualified}
            label = f"{scheme.partition('-')[0]}, made while loading ({spec.name})"
            config = {"components": {component: setting}}
            options.append(Option(key=spec.name, label=label, config=config))
    return (options[0], *trial.usable(options[1:]))


def _stored_label(plan: Plan, component: str) -> str:
    """How the files of a component are stored, in brackets."""
    records = [part for part in plan.components if part.name == component] or [
        part for part in plan.components if part.name not in (*_COMPONENTS, "vae", "tiny_vae")
    ]
    return f" ({records[0].scheme or records[0].precision})" if records else ""


def _automatic_attention(plan: Plan) -> Option:
    return Option(
        key=_AUTO,
        label=f"automatic ({plan.choice('attention').use.partition('/')[2]} here)",
        config={"attention": _AUTO},
    )


def _implementations(
    plugins: PluginSet, kind: str, key: str, first: Option | None = None
) -> Iterator[Option]:
    """Every installed implementation of a kind, by its qualified name."""
    if first is not None:
        yield first
    by_priority = sorted(plugins.provided(kind), key=lambda entry: (-entry.spec.priority, entry.spec.name))
    for provided in by_priority:
        label = f"{provided.spec.name}: {provided.spec.summary}"
        yield Option(key=provided.spec.name, label=label, config={key: provided.qualified})


def _tiny_vae_config() -> Config:
    return {"model": {"use": _AUTO, "options": {"*": {"tiny_vae": True}}}}


def _loras(source: ModelSource, inspection: Inspection, trial: _TrialPlanner) -> Iterator[LoraFile]:
    """The LoRA files of the folder and of the other places that have an effect."""
    paths = [Path(inspection.path, report.file) for report in inspection.loras]
    checkpoints = [provided.spec.name for provided in trial.plugins.provided("checkpoint")]
    for name in (*source.loras, *checkpoints):
        try:
            other = inspect(name, trial.plugins)
        except LightX2VError as exc:
            if name in source.loras:
                raise  # somebody named it
            trial.refused.append(f"{name}: {_reason(exc)}")
            continue
        root = Path(other.path)
        paths += [root / report.file if root.is_dir() else root for report in other.loras]
    for path in dict.fromkeys(paths):
        try:
            plan = trial.plan({"loras": [{"path": str(path)}]})
        except LightX2VError as exc:
            trial.refused.append(f"LoRA file {path.name}: {_reason(exc)}")
            continue
        adapters = plan.adapters
        matched = sum(len(adapter.matched) for adapter in adapters)
        tensors = sum(adapter.tensors for adapter in adapters)
        if not matched:
            trial.refused.append(f"LoRA file {path.name}: it has no effect on this network")
            continue
        changed = sum(adapter.changed for adapter in adapters)
        coverage = f"{matched} of {tensors} tensors of the file have an effect, on {changed} of the network"
        yield LoraFile(path=str(path), name=path.name, coverage=coverage)


def _examples(folder: str, plugins: PluginSet) -> tuple[str, ...]:
    """The prompts that come with a checkpoint of a plugin."""
    if Path(folder).expanduser().exists():
        return ()
    specs: list[Any] = [provided.spec for provided in plugins.provided("checkpoint")]
    return next((tuple(spec.examples) for spec in specs if spec.name == folder), ())


def find_option(options: Sequence[Option], key: str) -> Option:
    """The option of a key. ``RequestError`` for one that is not offered."""
    option = next((option for option in options if option.key == key), None)
    if option is None:
        raise RequestError(
            f"{key!r} cannot be chosen here; there is {', '.join(o.key or 'as stored' for o in options)}"
        )
    return option
