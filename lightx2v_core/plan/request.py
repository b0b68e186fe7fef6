"""The request of a plan: task, inputs, values, stages and output. Missing values come from the model's defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from attrs import asdict, evolve, field, frozen

from lightx2v_core.checkpoint.folders import expanded, short
from lightx2v_core.checkpoint.listing import why_not
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginError, RequestError, suggestion
from lightx2v_core.plan.output import planned_output
from lightx2v_core.plan.plan import PlannedOutput
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.selection import Implementation, check_steps, select
from lightx2v_core.spec.components import TaskSpec
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.recognition import Defaults, Geometry, Recognition, Stage, Target
from lightx2v_core.spec.request import Request
from lightx2v_core.spec.specs import ModelSpec, SchedulerSpec

T = TypeVar("T")


def chosen_task(config: RunConfig, recognition: Recognition) -> str:
    """Return the configured task, else the only one. Raises ``RequestError`` if the model does not support it."""
    tasks = recognition.tasks
    if config.task is None and len(tasks) == 1:
        return tasks[0]
    if config.task is None:
        raise RequestError(f"{recognition.variant} supports {', '.join(tasks)}; choose one with --task")
    if config.task not in tasks:
        raise RequestError(
            f"{recognition.variant} supports {', '.join(tasks)}, not {config.task!r}"
            f"{suggestion(config.task, tasks)}"
        )
    return config.task


def task_inputs(
    config: RunConfig, spec: ModelSpec, task: str, in_memory: Mapping[str, object]
) -> Mapping[str, object]:
    """Collect the inputs of the task.

    Raises ``RequestError`` for files that do not exist, and for inputs that the task does not accept: ignoring one
    would hide a mistake.
    """
    given: dict[str, object] = {
        name: value for name, value in asdict(config.inputs).items() if value is not None
    }
    given.update(in_memory)
    takes = spec.tasks.get(task, TaskSpec()).takes
    if wrong := sorted(set(given) - takes):
        what = ", ".join(sorted(takes)) if takes else "a prompt only"
        raise RequestError(
            f"task {task} of {spec.name} does not accept {', '.join(wrong)}; it accepts {what}"
        )
    for name, value in given.items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and not os.path.isfile(expanded(path)):
                raise RequestError(f"{name} {short(path)} {why_not(expanded(path)) or 'is not a file'}")
    return given


@frozen(kw_only=True)
class _Origins:
    """A collector of values and their origins, which fills in missing values."""

    loaded: LoadedConfig
    by_model: str
    noted: dict[str, str] = field(factory=dict)

    def value(self, name: str, given: T | None, default: T, *path: str, by: str = "") -> T:
        """Return ``given``, else ``default``. Records the origin: ``by`` or the model, for a default."""
        self.noted[name] = self.loaded.origin(*path) if given is not None else by or self.by_model
        return default if given is None else given


def filled_request(
    loaded: LoadedConfig,
    registry: Registry,
    match: ModelMatch,
    ctx: BuildContext,
    task: str,
    inputs: Mapping[str, object],
) -> tuple[Request, Geometry, dict[str, str], Implementation[SchedulerSpec]]:
    """Fill in missing values with the official ones of the variant, task and size, and select the scheduler."""
    config, sampling, recognition = loaded.config, loaded.config.sampling, match.recognition
    defaults = match.spec.defaults(recognition, task, sampling.size)
    origins = _Origins(loaded=loaded, by_model=f"default of {recognition.variant}")
    value = origins.value
    width, height = value("size", sampling.size, (defaults.width, defaults.height), "sampling", "size")
    frames = value("frames", sampling.frames, defaults.frames, "sampling", "frames")
    target = Target(task=task, width=width, height=height, frames=frames, inputs=inputs)
    geometry = match.spec.geometry(recognition, target)
    scheduler = _scheduler(origins, registry, ctx, defaults)
    # a model with a default prompt uses it if none is given, or an empty one
    prompt = config.prompt if (config.prompt or "").strip() or not defaults.prompt else None
    prompt_by, negative = "" if defaults.prompt else "not given", defaults.negative_prompt
    request = Request(
        task=task,
        steps=_steps(origins, scheduler, defaults),
        guide_scale=_guide_scale(origins, scheduler, defaults, recognition),
        prompt=value("prompt", prompt, defaults.prompt, "prompt", by=prompt_by),
        negative_prompt=value("negative_prompt", config.negative_prompt, negative, "negative_prompt"),
        width=geometry.width,
        height=geometry.height,
        frames=geometry.frames,
        fps=value("fps", sampling.fps, defaults.fps, "sampling", "fps"),
        shift=value("shift", sampling.shift, defaults.shift, "sampling", "shift"),
        scheduler=scheduler.selection.name,
        **sampling.undecided,
    )
    origins.noted["seed"] = loaded.origin("sampling", "seed")
    return request, geometry, origins.noted, scheduler


def _scheduler(
    origins: _Origins, registry: Registry, ctx: BuildContext, defaults: Defaults
) -> Implementation[SchedulerSpec]:
    default, loaded = Section(use=(defaults.scheduler,)), origins.loaded
    section = origins.value("scheduler", loaded.config.scheduler, default, "scheduler", "use")
    return select(registry, SchedulerSpec, section, ctx, origin=origins.noted["scheduler"], loaded=loaded)


def _steps(origins: _Origins, scheduler: Implementation[SchedulerSpec], defaults: Defaults) -> int:
    """Return the number of steps: fixed by the scheduler, else configured, else the model's default.

    Raises ``RequestError`` if the configured number differs from a fixed one.
    """
    given, fixed = origins.loaded.config.sampling.steps, scheduler.spec.steps(scheduler.config)
    if fixed is None:
        return origins.value("steps", given, defaults.steps, "sampling", "steps")
    by = f"default of {scheduler.selection.name}"
    steps = origins.value("steps", given, fixed, "sampling", "steps", by=by)
    check_steps(scheduler.spec, scheduler.config, steps, origins.noted["steps"])
    return steps


def _guide_scale(
    origins: _Origins,
    scheduler: Implementation[SchedulerSpec],
    defaults: Defaults,
    recognition: Recognition,
) -> tuple[float, ...]:
    """Return the guidance scales: one for all networks or one for each. 1 for schedulers without guidance."""
    given, default, by = origins.loaded.config.sampling.guide_scale, defaults.guide_scale, ""
    if not scheduler.spec.guided:
        default, by = (1.0,), f"default of {scheduler.selection.name}"
    scales = origins.value("guide_scale", given, default, "sampling", "guide_scale", by=by)
    least = defaults.least_guide_scale
    if least is not None and any(scale < least for scale in scales):
        scales = tuple(max(scale, least) for scale in scales)
        origins.noted["guide_scale"] += f"; raised to the minimum of {least:g}"
    if len(scales) > recognition.experts:
        raise RequestError(
            f"{len(scales)} guidance scales given; {recognition.variant} has {recognition.experts} "
            f"network{'s' * (recognition.experts > 1)}"
        )
    return scales


def planned_stages(match: ModelMatch, request: Request, geometry: Geometry) -> tuple[Stage, ...]:
    """Return the denoising stages of a request.

    Raises ``PluginError`` if their first steps do not rise from 0, or if the last stage does not have the size of the
    video.
    """
    stages = tuple(match.spec.stages(match.recognition, request, geometry, match.model.config))
    starts = [stage.start for stage in stages]
    rising = starts[:1] == [0] and starts == sorted(set(starts)) and starts[-1] < request.steps
    if not rising or stages[-1].geometry != geometry:
        raise PluginError(
            f"model {match.spec.name} plans stages that start at steps {starts} of {request.steps}; they must start at "
            "0, rise, and end with the size of the video: this is a bug in its plugin"
        )
    return stages


def request_output(
    config: RunConfig, match: ModelMatch, request: Request, inputs: Mapping[str, object]
) -> PlannedOutput:
    """Plan the output, with the sound track of the task's audio input."""
    output = planned_output(config.output, match.recognition.variant, request)
    sound = inputs.get(match.spec.tasks[request.task].audio or "")
    return evolve(output, audio=sound) if isinstance(sound, str) and output.kind == "mp4" else output
