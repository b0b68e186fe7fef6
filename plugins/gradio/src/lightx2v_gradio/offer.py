"""What the page offers for a model folder: found out by planning it, so that nothing is offered that would be refused.

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
_KINDS = ("model", "attention", "quantizer", "offloader")
#: how a component is called on the page
_PARTS = {"dit": "Video network", "text_encoder": "Text encoder", "image_encoder": "Image encoder"}
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
class Place:
    """What the page was started with, or a user has asked for: a folder, and what applies to every plan of it."""

    folder: str
    task: str | None = None
    #: configuration below everything that is chosen on the page
    base: Config = field(factory=dict)
    #: files, and folders of files, to look for LoRA files besides the model's folder
    loras: tuple[str, ...] = ()


@frozen(kw_only=True)
class Offer:
    """Everything that can be asked of a folder, with the plan of what happens when nothing is."""

    place: Place
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


def merged(*configs: Config) -> dict[str, Any]:
    """Configurations over one another; objects are merged key by key."""
    found: dict[str, Any] = {}
    for config in configs:
        for key, value in config.items():
            below = found.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                found[key] = merged(below, value)
            else:
                found[key] = value
    return found


def offer(place: Place, plugins: PluginSet) -> Offer:
    """What the page offers for a place. ``RequestError`` (and its kinds) when nothing can be run from it."""
    if not place.folder.strip():
        raise RequestError("no model folder is given")
    folder = place.folder.strip()
    found, planner = inspect(folder, plugins), Planner(plugins)
    tasks = tuple(dict.fromkeys(run.task for run in found.runnable))
    if not tasks:  # planning says why, in the words of the command line
        planner.plan(folder, config=place.base, **_task(place.task))
        raise RequestError("; ".join(found.obstacles) or f"nothing can be run from {place.folder!r}")
    place = evolve(place, folder=folder, task=place.task or tasks[0])
    plan = planner.plan(folder, config=place.base, **_task(place.task))
    trial = _Trial(place, plugins, planner)
    required, optional = _inputs(plan, plugins)
    precisions = {
        part: options for part in _parts(plan, found) if len(options := _precisions(part, found, trial)) > 1
    }
    attention = trial.usable(_named(plugins, "attention", "attention", first=_automatic_attention(plan)))
    schedulers = trial.usable(_named(plugins, "scheduler", "scheduler"))
    offloaders = trial.usable(
        _named(plugins, "offloader", "offloader", first=Option(key=_AUTO, label="automatic: the fastest that fits",
                                                               config={"offloader": _AUTO}))
    )  # fmt: skip
    tiny = trial.usable([Option(key="tiny_vae", label="", config=_tiny_vae())])
    return Offer(
        place=place,
        plan=plan,
        tasks=tasks,
        required=required,
        optional=optional,
        precisions=precisions,
        attention=attention,
        schedulers=schedulers,
        offloaders=offloaders,
        tiny_vae=tiny[0] if tiny else None,
        loras=tuple(_loras(place, found, trial)),
        examples=_examples(folder, plugins),
        unusable=tuple(dict.fromkeys(trial.refused)),
        missing=tuple(
            line
            for kind in _KINDS
            for line in missing(kind, [item.spec.name for item in plugins.provided(kind)])
        ),
    )


def part_label(part: str) -> str:
    """How a component is called on the page."""
    return _PARTS.get(part, part.replace("_", " ").capitalize())


class _Trial:
    """Plans a place with something chosen, and keeps why it was refused."""

    def __init__(self, place: Place, plugins: PluginSet, planner: Planner) -> None:
        self._place, self.plugins, self._planner = place, plugins, planner
        self.refused: list[str] = []

    def plan(self, config: Config) -> Plan:
        """The plan with ``config`` over what the place says."""
        return self._planner.plan(
            self._place.folder, config=merged(self._place.base, config), **_task(self._place.task)
        )

    def usable(self, options: Iterable[Option]) -> tuple[Option, ...]:
        """The options that can be planned; why the others cannot is kept when it is of interest."""
        found = []
        for option in options:
            try:
                self.plan(option.config)
                found.append(option)
            except LightX2VError as exc:
                if option.label:
                    self.refused.append(f"{option.label}: {_reason(exc)}")
        return tuple(found)


def _task(task: str | None) -> dict[str, Any]:
    return {} if task is None else {"task": task}


def _reason(exc: LightX2VError) -> str:
    """The reason in a refusal: of a selection the line about the candidate."""
    lines = [line.strip() for line in str(exc).splitlines()]
    return lines[1] if len(lines) > 1 and lines[0].startswith("no usable") else lines[0]


def _inputs(plan: Plan, plugins: PluginSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the task needs, and what it takes besides, by name."""
    spec: Any = next(item.spec for item in plugins.provided("model") if item.qualified == plan.model)
    task = spec.tasks[plan.task]
    return tuple(sorted(task.required)), tuple(sorted(task.optional))


def _parts(plan: Plan, found: Inspection) -> list[str]:
    """The components whose precision can be chosen: the network (experts together) and the encoders."""
    networks = {report.component for report in found.components if report.variants}
    encoders = [part.name for part in plan.components if part.name in _PARTS]
    return list(dict.fromkeys([*sorted(networks), *encoders]))


def _precisions(part: str, found: Inspection, trial: _Trial) -> tuple[Option, ...]:
    """What a component can be computed in: as its files are, files of another precision, or quantized on load."""
    reports = [report for report in found.components if report.component == part]
    stored = {report.scheme.partition("-")[0] or "original": report for report in reports}
    options = [Option(key=AS_IS, label="as stored" + _stored(trial.plan({}), part))]
    if len(stored) > 1:
        for name, report in sorted(stored.items()):
            what = f"{report.precision} file" if name == "original" else f"{name} file ({report.scheme})"
            options.append(Option(key=name, label=what, config={"components": {part: {"precision": name}}}))
    for item in trial.plugins.provided("quantizer"):
        spec: Any = item.spec
        makes = None if spec.makes is None else spec.makes(spec.config())
        if makes is not None and "original" in stored:
            plain = {"precision": "original"} if len(stored) > 1 else {}
            setting = {**plain, "quantizer": item.qualified}
            label = f"{makes.partition('-')[0]}, made while loading ({spec.name})"
            options.append(Option(key=spec.name, label=label, config={"components": {part: setting}}))
    return (options[0], *trial.usable(options[1:]))


def _stored(plan: Plan, part: str) -> str:
    """How the files of a component are stored, in brackets."""
    own = [item for item in plan.components if item.name == part] or [
        item for item in plan.components if item.name not in (*_PARTS, "vae", "tiny_vae")
    ]
    return f" ({own[0].scheme or own[0].precision})" if own else ""


def _automatic_attention(plan: Plan) -> Option:
    return Option(
        key=_AUTO,
        label=f"automatic ({plan.choice('attention').use.partition('/')[2]} here)",
        config={"attention": _AUTO},
    )


def _named(plugins: PluginSet, kind: str, key: str, first: Option | None = None) -> Iterator[Option]:
    """Every installed implementation of a kind, by its qualified name."""
    if first is not None:
        yield first
    for item in sorted(plugins.provided(kind), key=lambda item: (-item.spec.priority, item.spec.name)):
        label = f"{item.spec.name}: {item.spec.summary}"
        yield Option(key=item.spec.name, label=label, config={key: item.qualified})


def _tiny_vae() -> Config:
    return {"model": {"use": _AUTO, "options": {"*": {"tiny_vae": True}}}}


def _loras(place: Place, found: Inspection, trial: _Trial) -> Iterator[LoraFile]:
    """The LoRA files of the folder and of the other places that have an effect."""
    paths = [Path(found.path, report.file) for report in found.loras]
    brought = [item.spec.name for item in trial.plugins.provided("checkpoint")]
    for name in (*place.loras, *brought):
        try:
            there = inspect(name, trial.plugins)
        except LightX2VError as exc:
            if name in place.loras:
                raise  # somebody named it
            trial.refused.append(f"{name}: {_reason(exc)}")
            continue
        root = Path(there.path)
        paths += [root / report.file if root.is_dir() else root for report in there.loras]
    for path in dict.fromkeys(paths):
        try:
            plan = trial.plan({"loras": [{"path": str(path)}]})
        except LightX2VError as exc:
            trial.refused.append(f"LoRA file {path.name}: {_reason(exc)}")
            continue
        adapters = plan.adapters
        matched, tensors = sum(len(item.matched) for item in adapters), sum(item.tensors for item in adapters)
        if not matched:
            trial.refused.append(f"LoRA file {path.name}: it has no effect on this network")
            continue
        changed = sum(item.changed for item in adapters)
        coverage = f"{matched} of {tensors} tensors of the file have an effect, on {changed} of the network"
        yield LoraFile(path=str(path), name=path.name, coverage=coverage)


def _examples(folder: str, plugins: PluginSet) -> tuple[str, ...]:
    """The prompts that come with a checkpoint of a plugin."""
    if Path(folder).expanduser().exists():
        return ()
    specs: list[Any] = [item.spec for item in plugins.provided("checkpoint")]
    return next((tuple(spec.examples) for spec in specs if spec.name == folder), ())


def choice(options: Sequence[Option], key: str) -> Option:
    """The option of a key. ``RequestError`` for one that is not offered."""
    found = next((option for option in options if option.key == key), None)
    if found is None:
        raise RequestError(
            f"{key!r} cannot be chosen here; there is {', '.join(o.key or 'as stored' for o in options)}"
        )
    return found
