"""The form of the page as data: what each field shows for the options of a folder, and what its values mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.api import Plan, RequestError
from lightx2v_gradio.options import FolderOptions, Option, component_label
from lightx2v_gradio.settings import Settings, real_number, whole_number

#: input -> what it is called, and whether it is an image, images or a video
INPUTS: Mapping[str, tuple[str, str]] = {
    "image": ("Image (first frame)", "image"),
    "last_image": ("Last frame (image)", "image"),
    "src_video": ("Video to edit", "video"),
    "src_mask": ("Mask of what to change (video)", "video"),
    "ref_images": ("Reference images", "images"),
    "pose_video": ("Pose video", "video"),
    "face_video": ("Face video", "video"),
    "background_video": ("Background video", "video"),
    "mask_video": ("Mask video", "video"),
}
FREE = "free"
#: what stands in the empty field where the model says nothing itself
_A_PROMPT = "a red fox runs through the snow"
_NO_OPTIONS: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class FieldCounts:
    """How many fields a form has for what differs from folder to folder; a form is made once."""

    #: components whose precision can be chosen
    precisions: int = 4
    loras: int = 24


@frozen(kw_only=True)
class Field:
    """What a field shows. ``choices`` are labels and values; None in ``value`` is an empty field."""

    value: Any = None
    label: str | None = None
    info: str | None = None
    visible: bool = True
    choices: tuple[tuple[str, str], ...] = _NO_OPTIONS
    minimum: float | None = None
    step: float | None = None
    placeholder: str | None = None


def field_counts(options: FolderOptions) -> FieldCounts:
    """As many fields as it takes for all options of a folder, and for more than most folders have."""
    least = FieldCounts()
    return FieldCounts(
        precisions=max(least.precisions, len(options.precisions)), loras=max(least.loras, len(options.loras))
    )


def without_room(options: FolderOptions, counts: FieldCounts) -> tuple[str, ...]:
    """The options that the form has no room for, and how to get at it."""
    loras = [file.name for file in options.loras[counts.loras :]]
    components = [component_label(name) for name in list(options.precisions)[counts.precisions :]]
    how = "; a page that is started with this folder has them"
    return (
        *([f"{len(loras)} more LoRA files: {', '.join(loras)}{how}"] if loras else []),
        *([f"the precision of {', '.join(components)}{how}"] if components else []),
    )


def fields(options: FolderOptions, settings: Settings, counts: FieldCounts) -> dict[str, Field]:
    """Every field of the form, by name, with the values of ``settings`` or what happens when nothing is said."""
    return {
        "prompt": Field(value=settings.prompt, placeholder=next(iter(options.examples), _A_PROMPT)),
        **_input_fields(options, settings),
        **_size_fields(options, settings),
        **_sampling_fields(options, settings),
        **_machine_fields(options, settings, counts.precisions),
        **_lora_fields(options, settings, counts.loras),
    }


def read_settings(values: Mapping[str, Any], options: FolderOptions) -> Settings:
    """The settings that the values of the form mean. ``RequestError`` names the field that is wrong."""
    default = options.plan.request
    scheduler = values["scheduler"] or default.scheduler
    plain = scheduler == default.scheduler

    def said(value: Any, by_default: Any) -> Any:
        """None for what the model would do anyway, so that what follows from it follows."""
        return None if plain and value == by_default else value

    width, height = _size(values)
    negative = values["negative_prompt"] or ""
    return Settings(
        prompt=(values["prompt"] or "").strip(),
        negative_prompt=None if negative == default.negative_prompt else negative,
        inputs={name: values[name] for name in INPUTS if values.get(name)},
        width=width,
        height=height,
        frames=said(whole_number(values["frames"], "the number of frames"), default.frames),
        fps=said(real_number(values["fps"], "frames a second"), default.fps),
        steps=said(whole_number(values["steps"], "the number of steps"), default.steps),
        guide_scale=said(_scales(values, options), _both(default.guide_scale, options)) or (),
        # Gradio makes a 0 of a number that starts empty, until the page has come to itself
        shift=real_number(values["shift"], "the shift") or None,
        scheduler="" if plain else scheduler,
        seed=None if values["random_seed"] else whole_number(values["seed"], "the seed"),
        precision={
            component: values[f"precision_{slot}"] or ""
            for slot, component in enumerate(options.precisions)
            if f"precision_{slot}" in values
        },
        tiny_vae=bool(values["tiny_vae"]) and options.tiny_vae is not None,
        attention=values["attention"] or "",
        offloader=values["offloader"] or "",
        vram_limit=real_number(values["vram_limit"], "the limit of the device's memory") or None,
        ram_limit=real_number(values["ram_limit"], "the limit of the machine's memory") or None,
        loras={
            file.path: _strength(values[f"lora_strength_{slot}"], file.name)
            for slot, file in enumerate(options.loras)
            if values.get(f"lora_on_{slot}")
        },
    )


def parse_size(text: str) -> tuple[int, int]:
    """``832x480`` as width and height."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise RequestError(f"{text!r} is no size")
    return int(match[1]), int(match[2])


def _size(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    if values["size"] and values["size"] != FREE:
        return parse_size(values["size"])
    return whole_number(values["width"], "the width"), whole_number(values["height"], "the height")


def _scales(values: Mapping[str, Any], options: FolderOptions) -> tuple[float, ...]:
    scales = [real_number(values["guidance"], "the guidance scale")]
    if options.plan.experts > 1:
        scales.append(real_number(values["guidance_low"], "the guidance scale of the low-noise network"))
    given = [scale for scale in scales if scale is not None]
    if given and len(given) != len(scales):
        raise RequestError("give a guidance scale for both networks, or for none")
    return tuple(given)


def _both(scales: Sequence[float], options: FolderOptions) -> tuple[float, ...]:
    """A guidance for each network; one value serves both."""
    return tuple(scales[min(index, len(scales) - 1)] for index in range(options.plan.experts))


def _strength(value: Any, name: str) -> float:
    strength = real_number(value, f"the strength of {name}")
    return 1.0 if strength is None else strength


def _input_fields(options: FolderOptions, settings: Settings) -> dict[str, Field]:
    input_fields = {}
    for name, (label, _kind) in INPUTS.items():
        needed = name in options.required
        input_fields[name] = Field(
            value=settings.inputs.get(name),
            label=label if needed else f"{label} (optional)",
            visible=needed or name in options.optional,
        )
    return input_fields


def _size_fields(options: FolderOptions, settings: Settings) -> dict[str, Field]:
    plan, rules = options.plan, options.plan.sizes
    default = (plan.request.width, plan.request.height)
    presets = _presets(plan)
    now = (settings.width or default[0], settings.height or default[1])
    free = now not in presets
    shaped = [
        INPUTS[name][0].lower() for name in rules.shaped_by if name in (*options.required, *options.optional)
    ]
    info = f"The shape is that of the {shaped[0]}; this decides how many pixels." if shaped else None
    step_x, step_y = rules.step
    return {
        "size": Field(
            value=FREE if free else _text(now),
            choices=(*((_named(size), _text(size)) for size in presets), ("another size", FREE)),
            info=info,
        ),
        "width": Field(value=now[0], visible=free, minimum=step_x, step=step_x, info=_multiple(step_x)),
        "height": Field(value=now[1], visible=free, minimum=step_y, step=step_y, info=_multiple(step_y)),
        "frames": Field(
            value=settings.frames or plan.request.frames,
            minimum=rules.least_frames,
            step=rules.frame_step,
            info=_frames_info(options),
        ),
    }


def _presets(plan: Plan) -> list[tuple[int, int]]:
    """The size that is made when nothing is said, then the official ones; but a checkpoint that comes with a size of
    its own was trained on that one."""
    own = (plan.request.width, plan.request.height)
    its_own = plan.origins.get("size", "").startswith("checkpoint ")
    return [own] if its_own else list(dict.fromkeys([own, *plan.sizes.presets]))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _named(size: tuple[int, int]) -> str:
    width, height = size
    shape = "square" if width == height else "landscape" if width > height else "portrait"
    return f"{width} × {height}, {shape}"


def _multiple(step: int) -> str | None:
    return f"a multiple of {step}" if step > 1 else None


def _frames_info(options: FolderOptions) -> str:
    rules, request = options.plan.sizes, options.plan.request
    least, step = rules.least_frames, rules.frame_step
    numbers = f"{least}, {least + step}, {least + 2 * step} and so on; " if step > 1 else ""
    return f"{numbers}{request.frames} are {request.frames / request.fps:.1f} seconds"


def _sampling_fields(options: FolderOptions, settings: Settings) -> dict[str, Field]:
    default = options.plan.request
    scales = settings.guide_scale or default.guide_scale
    both = _both(scales, options)
    two = options.plan.experts > 1
    negative = default.negative_prompt if settings.negative_prompt is None else settings.negative_prompt
    return {
        "negative_prompt": Field(value=negative),
        "fps": Field(value=settings.fps or default.fps, minimum=1),
        "steps": Field(value=settings.steps or default.steps, minimum=1, step=1),
        "guidance": Field(
            value=both[0],
            label="Guidance scale, high-noise network" if two else "Guidance scale",
            info="CFG; 1 switches it off, which halves the time",
            minimum=0,
        ),
        "guidance_low": Field(value=both[-1], visible=two, minimum=0),
        "shift": Field(value=settings.shift, placeholder=f"{default.shift:g}", minimum=0,
                       info=f"empty: the model's own, {default.shift:g} here"),
        "scheduler": Field(value=settings.scheduler or default.scheduler, choices=_choices(options.schedulers)),
        "seed": Field(value=settings.seed if settings.seed is not None else default.seed, minimum=0, step=1),
        "random_seed": Field(value=settings.seed is None),
    }  # fmt: skip


def _machine_fields(options: FolderOptions, settings: Settings, count: int) -> dict[str, Field]:
    machine_fields: dict[str, Field] = {}
    precisions = list(options.precisions.items())
    for slot in range(count):
        if slot >= len(precisions):
            machine_fields[f"precision_{slot}"] = Field(visible=False)
            continue
        component, choices = precisions[slot]
        machine_fields[f"precision_{slot}"] = Field(
            value=settings.precision.get(component, choices[0].key),
            label=f"{component_label(component)}: precision",
            choices=_choices(choices),
        )
    on_card = options.plan.device.kind != "cpu"
    return {
        **machine_fields,
        "tiny_vae": Field(value=settings.tiny_vae, visible=options.tiny_vae is not None),
        "attention": _dropdown(options.attention, settings.attention),
        "offloader": _dropdown(options.offloaders, settings.offloader),
        "vram_limit": Field(value=settings.vram_limit, visible=on_card, minimum=0),
        "ram_limit": Field(value=settings.ram_limit, minimum=0),
    }


def _lora_fields(options: FolderOptions, settings: Settings, count: int) -> dict[str, Field]:
    lora_fields: dict[str, Field] = {}
    for slot in range(count):
        file = options.loras[slot] if slot < len(options.loras) else None
        on = file is not None and file.path in settings.loras
        lora_fields[f"lora_on_{slot}"] = Field(
            value=on,
            visible=file is not None,
            label=None if file is None else Path(file.name).stem,
            info=None if file is None else file.coverage,
        )
        lora_fields[f"lora_strength_{slot}"] = Field(
            value=settings.loras.get(file.path, 1.0) if file is not None else 1.0,
            visible=file is not None,
            label=None if file is None else f"Strength of {Path(file.name).stem}",
        )
    return lora_fields


def _dropdown(choices: Sequence[Option], key: str) -> Field:
    value = key or (choices[0].key if choices else None)
    return Field(value=value, choices=_choices(choices), visible=len(choices) > 1)


def _choices(choices: Sequence[Option]) -> tuple[tuple[str, str], ...]:
    return tuple((option.label, option.key) for option in choices)
