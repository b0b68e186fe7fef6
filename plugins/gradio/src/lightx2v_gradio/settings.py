"""The choices of a user on the page, as plain data, and the configuration and request that follow from them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from lightx2v_core.api import Plan, PluginSet, plan_run
from lightx2v_gradio.options import Config, FolderOptions, find_option, merge_configs
from lightx2v_gradio.texts import PageError, Text

#: number of seeds to draw from: short enough to read aloud
_SEEDS = 2**31
_GB = 10**9
#: at most one value for each of two experts
_SCALES = 2


@frozen(kw_only=True)
class Settings:
    """The choices of one video. None and empty values stand for the model's defaults."""

    prompt: str = ""
    #: None: the model's own text
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
    #: path -> strength of the enabled LoRA files, in order
    loras: Mapping[str, float] = field(factory=dict)


def random_seed() -> int:
    """Draw a seed."""
    return secrets.randbelow(_SEEDS)


def load_config(settings: Settings, options: FolderOptions) -> Config:
    """Return the configuration of the loaded model: everything but the request and the LoRA files."""
    layers: list[Config] = [options.source.base]
    for component, choices in options.precisions.items():
        key = settings.precision.get(component, choices[0].key)
        layers.append(find_option(choices, key).config)
    for choices, key in ((options.attention, settings.attention), (options.offloaders, settings.offloader)):
        if key:
            layers.append(find_option(choices, key).config)
    if settings.tiny_vae:
        if options.tiny_vae is None:
            raise PageError("error.tiny_vae")
        layers.append(options.tiny_vae.config)
    limits = {"vram_limit": settings.vram_limit, "ram_limit": settings.ram_limit}
    layers.append({"memory": {name: round(value * _GB) for name, value in limits.items() if value}})
    return merge_configs(*layers)


def lora_config(settings: Settings) -> list[dict[str, Any]]:
    """Return the enabled LoRA files in the form of a configuration."""
    return [{"path": path, "strength": strength} for path, strength in settings.loras.items()]


def request(settings: Settings, options: FolderOptions) -> dict[str, Any]:
    """Return the arguments of ``Pipeline.generate``, without those that were left at their defaults."""
    if (settings.width is None) != (settings.height is None):
        raise PageError("error.size_pair")
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
    """Plan these settings. ``RequestError`` for invalid ones; ``ready`` also requires the inputs, and a prompt unless
    the model has one of its own."""
    if ready and not settings.prompt.strip() and not options.plan.request.prompt:
        raise PageError("error.prompt")
    return plan_run(
        options.source.folder,
        config=merge_configs(load_config(settings, options), {"loras": lora_config(settings)}),
        plugins=plugins,
        ready=ready,
        task=options.plan.task,
        **request(settings, options),
    )


def from_record(record: Mapping[str, Any], settings: Settings) -> Settings:
    """Return ``settings`` with the request of a run record, which has every value that was used."""
    values = record["request"]
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


def whole_number(value: Any, name: Text) -> int | None:
    """Read a whole number from the form; None for an empty field. ``PageError`` for anything else.

    ``name`` is the label of the field.
    """
    number = real_number(value, name)
    if number is None:
        return None
    if number != int(number):
        raise PageError("error.whole", name=name, value=value)
    return int(number)


def real_number(value: Any, name: Text) -> float | None:
    """Read a number from the form; None for an empty field. ``PageError`` for anything else.

    ``name`` is the label of the field.
    """
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise PageError("error.number", name=name, value=repr(value)) from None
    if not math.isfinite(number):
        raise PageError("error.finite", name=name)
    return number
