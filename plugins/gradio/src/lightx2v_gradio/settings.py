"""What a user has chosen on the page, as plain data, and the configuration and request that follow from it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from lightx2v_core.api import Plan, PluginSet, RequestError, plan_run
from lightx2v_gradio.options import Config, FolderOptions, find_option, merge_configs

#: seeds that "random" draws from: short enough to be read out
_SEEDS = 2**31
_GB = 10**9
#: at most one value for each of two experts
_SCALES = 2


@frozen(kw_only=True)
class Settings:
    """The choices of one video. None and empty: what the model does when nothing is said."""

    prompt: str = ""
    #: None: the model's own one
    negative_prompt: str | None = None
    #: name -> path, or paths of reference images
    inputs: Mapping[str, Any] = field(factory=dict)
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    steps: int | None = None
    guide_scale: tuple[float, ...] = ()
    shift: float | None = None
    scheduler: str = ""
    seed: int | None = None
    #: component -> key of one of its options
    precision: Mapping[str, str] = field(factory=dict)
    tiny_vae: bool = False
    attention: str = ""
    offloader: str = ""
    vram_limit: float | None = None
    ram_limit: float | None = None
    #: path -> strength of the LoRA files that are on, in their order
    loras: Mapping[str, float] = field(factory=dict)


def random_seed() -> int:
    """A seed nobody has chosen."""
    return secrets.randbelow(_SEEDS)


def load_config(settings: Settings, options: FolderOptions) -> Config:
    """What belongs to the loaded model: everything but the request and the LoRA files."""
    layers: list[Config] = [options.source.base]
    for component, choices in options.precisions.items():
        key = settings.precision.get(component, choices[0].key)
        layers.append(find_option(choices, key).config)
    for choices, key in ((options.attention, settings.attention), (options.offloaders, settings.offloader)):
        if key:
            layers.append(find_option(choices, key).config)
    if settings.tiny_vae:
        if options.tiny_vae is None:
            raise RequestError("there is no tiny VAE in this folder; switch it off")
        layers.append(options.tiny_vae.config)
    limits = {"vram_limit": settings.vram_limit, "ram_limit": settings.ram_limit}
    layers.append({"memory": {name: round(value * _GB) for name, value in limits.items() if value}})
    return merge_configs(*layers)


def lora_config(settings: Settings) -> list[dict[str, Any]]:
    """The LoRA files that are on, as the configuration has them."""
    return [{"path": path, "strength": strength} for path, strength in settings.loras.items()]


def request(settings: Settings, options: FolderOptions) -> dict[str, Any]:
    """What one request says, by the names of ``Pipeline.generate``; what was not chosen is left out."""
    if (settings.width is None) != (settings.height is None):
        raise RequestError("width and height go together; give both or none")
    size = None if settings.width is None else (settings.width, settings.height)
    scheduler = (
        find_option(options.schedulers, settings.scheduler).config["scheduler"]
        if settings.scheduler
        else None
    )
    values = {
        "prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt,
        "size": size,
        "frames": settings.frames,
        "fps": settings.fps,
        "steps": settings.steps,
        "guide_scale": list(settings.guide_scale) or None,
        "shift": settings.shift,
        "scheduler": scheduler,
        "seed": settings.seed,
    }
    takes = {*options.required, *options.optional}
    inputs = {name: value for name, value in settings.inputs.items() if value and name in takes}
    return {**{name: value for name, value in values.items() if value is not None}, **inputs}


def plan_settings(
    settings: Settings, options: FolderOptions, plugins: PluginSet, *, ready: bool = False
) -> Plan:
    """The plan of these settings. ``RequestError`` says what is wrong; ``ready`` also asks for inputs, and for a prompt
    of models that have none of their own."""
    if ready and not settings.prompt.strip() and not options.plan.request.prompt:
        raise RequestError("there is no prompt; say what the video shows")
    return plan_run(
        options.source.folder,
        config=merge_configs(load_config(settings, options), {"loras": lora_config(settings)}),
        plugins=plugins,
        ready=ready,
        task=options.plan.task,
        **request(settings, options),
    )


def from_record(record: Mapping[str, Any], settings: Settings) -> Settings:
    """``settings`` with the request of a run record, which says every value that was used."""
    values = record["request"]
    from attrs import evolve

    return evolve(
        settings,
        prompt=values["prompt"],
        negative_prompt=values["negative_prompt"],
        width=values["width"],
        height=values["height"],
        frames=values["frames"],
        fps=values["fps"],
        steps=values["steps"],
        guide_scale=tuple(values["guide_scale"]),
        shift=values["shift"],
        seed=values["seed"],
    )


def whole_number(value: Any, name: str) -> int | None:
    """A whole number of a form, None when nothing was typed. ``RequestError`` for anything else."""
    number = real_number(value, name)
    if number is None:
        return None
    if number != int(number):
        raise RequestError(f"{name} has to be a whole number, not {value}")
    return int(number)


def real_number(value: Any, name: str) -> float | None:
    """A number of a form, None when nothing was typed. ``RequestError`` for anything else."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{name} has to be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise RequestError(f"{name} has to be a finite number")
    return number
