"""The options that the page offers for a model folder. Each is planned, so that none of them would be refused.

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
from lightx2v_gradio.texts import Message, PageError, Text, message

Config = Mapping[str, Any]

#: kinds of implementation that users select on the page; it names those that are not installed
_SELECTABLE_KINDS = ("model", "attention", "quantizer", "offloader")
#: components that have a name on the page
_COMPONENTS = ("dit", "text_encoder", "image_encoder")
_AUTO = "auto"
#: key of the choice that leaves a component as stored
AS_IS = ""


@frozen(kw_only=True)
class Option:
    """A choice of a list. ``config`` is the part of a configuration that selects it."""

    key: str
    label: Text
    config: Config = field(factory=dict)


@frozen(kw_only=True)
class LoraFile:
    """A LoRA file that matches the folder's network; ``coverage`` counts the matching tensors."""

    path: str
    name: str
    coverage: Text


@frozen(kw_only=True)
class ModelSource:
    """A model: the folder that the page was started with or that a user named, and the settings of every plan of it."""

    folder: str
    task: str | None = None
    #: configuration below all choices of the page
    base: Config = field(factory=dict)
    #: files and folders to search for LoRA files, besides the model's folder
    loras: tuple[str, ...] = ()


@frozen(kw_only=True)
class FolderOptions:
    """The options of a folder, and the plan of its defaults."""

    source: ModelSource
    plan: Plan
    tasks: tuple[str, ...]
    #: inputs that the task requires, and those that it accepts besides
    required: tuple[str, ...]
    optional: tuple[str, ...]
    #: component -> precisions, the default first
    precisions: Mapping[str, tuple[Option, ...]]
    attention: tuple[Option, ...]
    schedulers: tuple[Option, ...]
    offloaders: tuple[Option, ...]
    #: the option that switches the tiny VAE on; None for a folder without one
    tiny_vae: Option | None
    loras: tuple[LoraFile, ...]
    #: prompts that come with the model, in any language
    examples: tuple[str, ...]
    #: options that cannot be used here, with reasons; and distributions that are not installed, with what they bring
    unusable: tuple[Text, ...]
    missing: tuple[str, ...]


def merge_configs(*configs: Config) -> dict[str, Any]:
    """Merge configurations, later ones over earlier ones; objects are merged key by key."""
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
    """Find the options of a model. ``RequestError`` (or a subclass) for a folder with nothing to run."""
    if not source.folder.strip():
        raise PageError("error.folder")
    folder = source.folder.strip()
    inspection, planner = inspect(folder, plugins), Planner(plugins)
    tasks = tuple(dict.fromkeys(run.task for run in inspection.runnable))
    if not tasks:  # planning raises the error of the command line
        planner.plan(folder, config=source.base, **_task(source.task))
        if inspection.obstacles:
            raise RequestError("; ".join(inspection.obstacles))
        raise PageError("error.nothing", folder=repr(source.folder))
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
    automatic = Option(key=_AUTO, label=message("offloader.auto"), config={"offloader": _AUTO})
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
        unusable=tuple(trial.refused),
        missing=tuple(
            line
            for kind in _SELECTABLE_KINDS
            for line in missing(kind, [provided.spec.name for provided in plugins.provided(kind)])
        ),
    )


def component_label(component: str) -> Text:
    """Return the name of a component on the page."""
    if component in _COMPONENTS:
        return Message(f"component.{component}")
    return component.replace("_", " ").capitalize()


class _TrialPlanner:
    """A planner of single choices on top of a model's defaults; collects the reasons of refused ones."""

    def __init__(self, source: ModelSource, plugins: PluginSet, planner: Planner) -> None:
        self._source, self.plugins, self._planner = source, plugins, planner
        self.refused: list[Text] = []

    def plan(self, config: Config) -> Plan:
        """Plan the source with ``config`` over its own configuration."""
        return self._planner.plan(
            self._source.folder, config=merge_configs(self._source.base, config), **_task(self._source.task)
        )

    def usable(self, options: Iterable[Option]) -> tuple[Option, ...]:
        """Return the options that can be planned, and note why the others cannot (those with a label)."""
        usable = []
        for option in options:
            try:
                self.plan(option.config)
                usable.append(option)
            except LightX2VError as exc:
                if option.label:
                    self.refused.append(message("absent.refused", option=option.label, reason=_reason(exc)))
        return tuple(usable)


def _task(task: str | None) -> dict[str, Any]:
    return {} if task is None else {"task": task}


def _reason(exc: LightX2VError) -> str:
    """Extract the reason from a refusal; for a failed selection, the line about the candidate."""
    lines = [line.strip() for line in str(exc).splitlines()]
    return lines[1] if len(lines) > 1 and lines[0].startswith("no usable") else lines[0]


def _inputs(plan: Plan, plugins: PluginSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the inputs that the task requires, and of those that it accepts besides."""
    spec: Any = next(model.spec for model in plugins.provided("model") if model.qualified == plan.model)
    task = spec.tasks[plan.task]
    return tuple(sorted(task.required)), tuple(sorted(task.optional))


def _quantizable_components(plan: Plan, inspection: Inspection) -> list[str]:
    """List the components with a choice of precision: the network (experts together) and the encoders."""
    networks = {report.component for report in inspection.components if report.variants}
    encoders = [component.name for component in plan.components if component.name in _COMPONENTS]
    return list(dict.fromkeys([*sorted(networks), *encoders]))


def _precisions(component: str, inspection: Inspection, trial: _TrialPlanner) -> tuple[Option, ...]:
    """List the precisions of a component: as stored, files of another precision, or quantized while loading."""
    reports = [report for report in inspection.components if report.component == component]
    stored = {report.scheme.partition("-")[0] or "original": report for report in reports}
    options = [Option(key=AS_IS, label=_stored_label(trial.plan({}), component))]
    if len(stored) > 1:
        for name, report in sorted(stored.items()):
            description = (
                message("precision.original_file", precision=report.precision)
                if name == "original"
                else message("precision.file", precision=name, scheme=report.scheme)
            )
            config = {"components": {component: {"precision": name}}}
            options.append(Option(key=name, label=description, config=config))
    for quantizer in trial.plugins.provided("quantizer"):
        spec: Any = quantizer.spec
        scheme = None if spec.makes is None else spec.makes(spec.config())
        if scheme is not None and "original" in stored:
            plain = {"precision": "original"} if len(stored) > 1 else {}
            setting = {**plain, "quantizer": quantizer.qualified}
            label = message("precision.quantized", precision=scheme.partition("-")[0], quantizer=spec.name)
            config = {"components": {component: setting}}
            options.append(Option(key=spec.name, label=label, config=config))
    return (options[0], *trial.usable(options[1:]))


def _stored_label(plan: Plan, component: str) -> Text:
    """Return the label for a component as stored, with the precision of its files."""
    records = [part for part in plan.components if part.name == component] or [
        part for part in plan.components if part.name not in (*_COMPONENTS, "vae", "tiny_vae")
    ]
    if not records:
        return message("precision.stored")
    return message("precision.stored_as", precision=records[0].scheme or records[0].precision)


def _automatic_attention(plan: Plan) -> Option:
    return Option(
        key=_AUTO,
        label=message("attention.auto", name=plan.choice("attention").use.partition("/")[2]),
        config={"attention": _AUTO},
    )


def _implementations(
    plugins: PluginSet, kind: str, key: str, first: Option | None = None
) -> Iterator[Option]:
    """Yield the installed implementations of a kind, by priority, after ``first``."""
    if first is not None:
        yield first
    by_priority = sorted(plugins.provided(kind), key=lambda entry: (-entry.spec.priority, entry.spec.name))
    for provided in by_priority:
        label = f"{provided.spec.name}: {provided.spec.summary}"
        yield Option(key=provided.spec.name, label=label, config={key: provided.qualified})


def _tiny_vae_config() -> Config:
    return {"model": {"use": _AUTO, "options": {"*": {"tiny_vae": True}}}}


def _loras(source: ModelSource, inspection: Inspection, trial: _TrialPlanner) -> Iterator[LoraFile]:
    """Yield the LoRA files of the folder and of the other places that match the network."""
    paths = [Path(inspection.path, report.file) for report in inspection.loras]
    checkpoints = [provided.spec.name for provided in trial.plugins.provided("checkpoint")]
    for name in (*source.loras, *checkpoints):
        try:
            other = inspect(name, trial.plugins)
        except LightX2VError as exc:
            if name in source.loras:
                raise  # named on the command line
            trial.refused.append(message("absent.refused", option=name, reason=_reason(exc)))
            continue
        root = Path(other.path)
        paths += [root / report.file if root.is_dir() else root for report in other.loras]
    for path in dict.fromkeys(paths):
        try:
            plan = trial.plan({"loras": [{"path": str(path)}]})
        except LightX2VError as exc:
            trial.refused.append(message("absent.lora", name=path.name, reason=_reason(exc)))
            continue
        adapters = plan.adapters
        matched = sum(len(adapter.matched) for adapter in adapters)
        tensors = sum(adapter.tensors for adapter in adapters)
        if not matched:
            reason = message("absent.lora.no_effect")
            trial.refused.append(message("absent.lora", name=path.name, reason=reason))
            continue
        changed = sum(adapter.changed for adapter in adapters)
        coverage = message("lora.coverage", matched=matched, tensors=tensors, changed=changed)
        yield LoraFile(path=str(path), name=path.name, coverage=coverage)


def _examples(folder: str, plugins: PluginSet) -> tuple[str, ...]:
    """Return the prompts that come with a checkpoint of a plugin; a folder of the same name on disk has none."""
    if Path(folder).expanduser().exists():
        return ()
    specs: list[Any] = [provided.spec for provided in plugins.provided("checkpoint")]
    return next((tuple(spec.examples) for spec in specs if spec.name == folder), ())


def find_option(options: Sequence[Option], key: str) -> Option:
    """Return the option of a key. ``PageError`` for one that is not offered."""
    option = next((option for option in options if option.key == key), None)
    if option is None:
        keys = [o.key or message("precision.stored") for o in options]
        raise PageError("error.option", choice=repr(key), choices=keys)
    return option
