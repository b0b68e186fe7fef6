"""The form of the page as data: the contents of its fields for the options of a folder, and reading them back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.api import Plan
from lightx2v_gradio.options import FolderOptions, Option, component_label
from lightx2v_gradio.settings import Settings, real_number, whole_number
from lightx2v_gradio.texts import Message, PageError, Texts, message

#: input -> its type: image, images or video; ``input.NAME`` is the key of its label
INPUTS: Mapping[str, str] = {
    "image": "image",
    "last_image": "image",
    "src_video": "video",
    "src_mask": "video",
    "ref_images": "images",
    "pose_video": "video",
    "face_video": "video",
    "background_video": "video",
    "mask_video": "video",
}
FREE = "free"
#: most example prompts in the language of the page
_MOST_OWN = 3
_NO_OPTIONS: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class FieldCounts:
    """Number of fields for the parts that differ from folder to folder; a form is built once."""

    #: components with a choice of precision
    precisions: int = 4
    loras: int = 24


@frozen(kw_only=True)
class Field:
    """The contents of a field. ``choices`` are labels and values; None in ``value`` is an empty field."""

    value: Any = None
    label: str | None = None
    info: str | None = None
    visible: bool = True
    choices: tuple[tuple[str, str], ...] = _NO_OPTIONS
    minimum: float | None = None
    step: float | None = None
    placeholder: str | None = None


def field_counts(options: FolderOptions) -> FieldCounts:
    """Count the fields for all options of a folder, with room for those of most other folders."""
    least = FieldCounts()
    return FieldCounts(
        precisions=max(least.precisions, len(options.precisions)), loras=max(least.loras, len(options.loras))
    )


def without_room(options: FolderOptions, counts: FieldCounts) -> tuple[Message, ...]:
    """List the options beyond the fields of the form, with the way to reach them."""
    loras = [file.name for file in options.loras[counts.loras :]]
    components = [component_label(name) for name in list(options.precisions)[counts.precisions :]]
    return (
        *([message("room.loras", count=len(loras), names=loras)] if loras else []),
        *([message("room.precisions", components=components)] if components else []),
    )


def fields(options: FolderOptions, settings: Settings, counts: FieldCounts, texts: Texts) -> dict[str, Field]:
    """Return every field of the form by name, with the values of ``settings`` or the model's defaults."""
    return {
        "prompt": Field(value=settings.prompt, placeholder=prompts(options, texts)[0]),
        **_input_fields(options, settings, texts),
        **_size_fields(options, settings, texts),
        **_sampling_fields(options, settings, texts),
        **_machine_fields(options, settings, counts.precisions, texts),
        **_lora_fields(options, settings, counts.loras, texts),
    }


def prompts(options: FolderOptions, texts: Texts) -> list[str]:
    """Return the example prompts: up to three that come with the model, in the language of the page, and one in another
    language; for other models some that suit the task."""
    if options.examples:
        own = [prompt for prompt in options.examples if _is_chinese(prompt) == (texts.language == "zh")]
        others = [prompt for prompt in options.examples if prompt not in own]
        return [*own[:_MOST_OWN], *(others[:1] if own else others[:_MOST_OWN])]
    prefix = f"prompt.{options.plan.task}."
    found = [text for key, text in texts.catalogue.items() if key.startswith(prefix)]
    return found or [texts("prompt.t2v.1")]


def read_settings(values: Mapping[str, Any], options: FolderOptions) -> Settings:
    """Read the settings from the values of the form. ``RequestError`` names an invalid field."""
    default = options.plan.request
    scheduler = values["scheduler"] or default.scheduler
    plain = scheduler == default.scheduler

    def changed(value: Any, by_default: Any) -> Any:
        """Replace a default by None, so that values derived from it are still derived."""
        return None if plain and value == by_default else value

    width, height = _size(values)
    negative = values["negative_prompt"] or ""
    return Settings(
        prompt=(values["prompt"] or "").strip(),
        negative_prompt=None if negative == default.negative_prompt else negative,
        inputs={name: values[name] for name in INPUTS if values.get(name)},
        width=width,
        height=height,
        frames=changed(whole_number(values["frames"], message("frames")), default.frames),
        fps=changed(real_number(values["fps"], message("fps")), default.fps),
        steps=changed(whole_number(values["steps"], message("steps")), default.steps),
        guide_scale=changed(_scales(values, options), _both(default.guide_scale, options)) or (),
        # Gradio sends 0 for a number that starts empty, until the page has loaded
        shift=real_number(values["shift"], message("shift")) or None,
        scheduler="" if plain else scheduler,
        seed=None if values["random_seed"] else whole_number(values["seed"], message("seed")),
        precision={
            component: values[f"precision_{slot}"] or ""
            for slot, component in enumerate(options.precisions)
            if f"precision_{slot}" in values
        },
        tiny_vae=bool(values["tiny_vae"]) and options.tiny_vae is not None,
        attention=values["attention"] or "",
        offloader=values["offloader"] or "",
        vram_limit=real_number(values["vram_limit"], message("vram_limit")) or None,
        ram_limit=real_number(values["ram_limit"], message("ram_limit")) or None,
        loras={
            file.path: _strength(values[f"lora_strength_{slot}"], file.name)
            for slot, file in enumerate(options.loras)
            if values.get(f"lora_on_{slot}")
        },
    )


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``832x480`` into width and height. ``PageError`` for any other text."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise PageError("error.size", size=repr(text))
    return int(match[1]), int(match[2])


def _size(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    if values["size"] and values["size"] != FREE:
        return parse_size(values["size"])
    return whole_number(values["width"], message("width")), whole_number(values["height"], message("height"))


def _scales(values: Mapping[str, Any], options: FolderOptions) -> tuple[float, ...]:
    two = options.plan.experts > 1
    scales = [real_number(values["guidance"], message("guidance.high" if two else "guidance"))]
    if two:
        scales.append(real_number(values["guidance_low"], message("guidance.low")))
    given = [scale for scale in scales if scale is not None]
    if given and len(given) != len(scales):
        raise PageError("error.guidance_pair")
    return tuple(given)


def _both(scales: Sequence[float], options: FolderOptions) -> tuple[float, ...]:
    """Return a guidance scale for each network; a single value serves both."""
    return tuple(scales[min(index, len(scales) - 1)] for index in range(options.plan.experts))


def _strength(value: Any, name: str) -> float:
    strength = real_number(value, message("lora.strength", name=name))
    return 1.0 if strength is None else strength


def _input_fields(options: FolderOptions, settings: Settings, texts: Texts) -> dict[str, Field]:
    input_fields = {}
    for name in INPUTS:
        label = texts(f"input.{name}")
        needed = name in options.required
        input_fields[name] = Field(
            value=settings.inputs.get(name),
            label=label if needed else texts("input.optional", label=label),
            visible=needed or name in options.optional,
        )
    return input_fields


def _size_fields(options: FolderOptions, settings: Settings, texts: Texts) -> dict[str, Field]:
    plan, rules = options.plan, options.plan.sizes
    default = (plan.request.width, plan.request.height)
    presets = _presets(plan)
    now = (settings.width or default[0], settings.height or default[1])
    free = now not in presets
    shaped = [name for name in rules.shaped_by if name in (*options.required, *options.optional)]
    info = texts("size.shaped", input=message(f"input.{shaped[0]}")) if shaped else None
    step_x, step_y = rules.step
    return {
        "size": Field(
            value=FREE if free else _text(now),
            choices=(*((_named(size, texts), _text(size)) for size in presets), (texts("size.free"), FREE)),
            info=info,
        ),
        "width": Field(
            value=now[0], visible=free, minimum=step_x, step=step_x, info=_multiple(step_x, texts)
        ),
        "height": Field(
            value=now[1], visible=free, minimum=step_y, step=step_y, info=_multiple(step_y, texts)
        ),
        "frames": Field(
            value=settings.frames or plan.request.frames,
            minimum=rules.least_frames,
            step=rules.frame_step,
            info=_frames_info(options, texts),
        ),
    }


def _presets(plan: Plan) -> list[tuple[int, int]]:
    """List the default size, then the official ones; a checkpoint with a size of its own was trained on that one
    alone."""
    own = (plan.request.width, plan.request.height)
    its_own = plan.origins.get("size", "").startswith("checkpoint ")
    return [own] if its_own else list(dict.fromkeys([own, *plan.sizes.presets]))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _named(size: tuple[int, int], texts: Texts) -> str:
    width, height = size
    shape = "square" if width == height else "landscape" if width > height else "portrait"
    return texts("size.preset", width=width, height=height, shape=texts(f"size.{shape}"))


def _multiple(step: int, texts: Texts) -> str | None:
    return texts("size.multiple", step=step) if step > 1 else None


def _frames_info(options: FolderOptions, texts: Texts) -> str:
    rules, request = options.plan.sizes, options.plan.request
    least, step = rules.least_frames, rules.frame_step
    length = {"frames": request.frames, "seconds": f"{request.frames / request.fps:.1f}"}
    if step > 1:
        return texts("frames.steps", first=least, second=least + step, third=least + 2 * step, **length)
    return texts("frames.info", **length)


def _sampling_fields(options: FolderOptions, settings: Settings, texts: Texts) -> dict[str, Field]:
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
            label=texts("guidance.high" if two else "guidance"),
            info=texts("guidance.info"),
            minimum=0,
        ),
        "guidance_low": Field(value=both[-1], visible=two, minimum=0),
        "shift": Field(value=settings.shift, placeholder=f"{default.shift:g}", minimum=0,
                       info=texts("shift.info", shift=f"{default.shift:g}")),
        "scheduler": Field(value=settings.scheduler or default.scheduler, choices=_choices(options.schedulers, texts)),
        "seed": Field(value=settings.seed if settings.seed is not None else default.seed, minimum=0, step=1),
        "random_seed": Field(value=settings.seed is None),
    }  # fmt: skip


def _machine_fields(options: FolderOptions, settings: Settings, count: int, texts: Texts) -> dict[str, Field]:
    machine_fields: dict[str, Field] = {}
    precisions = list(options.precisions.items())
    for slot in range(count):
        if slot >= len(precisions):
            machine_fields[f"precision_{slot}"] = Field(visible=False)
            continue
        component, choices = precisions[slot]
        machine_fields[f"precision_{slot}"] = Field(
            value=settings.precision.get(component, choices[0].key),
            label=texts("precision.of", component=component_label(component)),
            choices=_choices(choices, texts),
        )
    on_gpu = options.plan.device.kind != "cpu"
    return {
        **machine_fields,
        "tiny_vae": Field(value=settings.tiny_vae, visible=options.tiny_vae is not None),
        "attention": _dropdown(options.attention, settings.attention, texts),
        "offloader": _dropdown(options.offloaders, settings.offloader, texts),
        "vram_limit": Field(value=settings.vram_limit, visible=on_gpu, minimum=0),
        "ram_limit": Field(value=settings.ram_limit, minimum=0),
    }


def _lora_fields(options: FolderOptions, settings: Settings, count: int, texts: Texts) -> dict[str, Field]:
    lora_fields: dict[str, Field] = {}
    for slot in range(count):
        file = options.loras[slot] if slot < len(options.loras) else None
        on = file is not None and file.path in settings.loras
        lora_fields[f"lora_on_{slot}"] = Field(
            value=on,
            visible=file is not None,
            label=None if file is None else Path(file.name).stem,
            info=None if file is None else texts.show(file.coverage),
        )
        lora_fields[f"lora_strength_{slot}"] = Field(
            value=settings.loras.get(file.path, 1.0) if file is not None else 1.0,
            visible=file is not None,
            label=None if file is None else texts("lora.strength", name=Path(file.name).stem),
        )
    return lora_fields


def _dropdown(choices: Sequence[Option], key: str, texts: Texts) -> Field:
    value = key or (choices[0].key if choices else None)
    return Field(value=value, choices=_choices(choices, texts), visible=len(choices) > 1)


def _choices(choices: Sequence[Option], texts: Texts) -> tuple[tuple[str, str], ...]:
    return tuple((texts.show(option.label), option.key) for option in choices)


def _is_chinese(prompt: str) -> bool:
    return re.search("[\u4e00-\u9fff]", prompt) is not None
