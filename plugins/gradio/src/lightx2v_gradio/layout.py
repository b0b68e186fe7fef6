"""Where things are on the page. No listener is here."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr
from attrs import frozen

from lightx2v_gradio import panels
from lightx2v_gradio.form import INPUTS, Field, FieldCounts, field_counts, fields, without_room
from lightx2v_gradio.options import FolderOptions
from lightx2v_gradio.settings import Settings
from lightx2v_gradio.style import PRESSED

TITLE = "lightx2v-core"
_VIDEOS = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"]


def _path_of(_image: Any, payload: Any) -> Any:
    return None if payload is None else payload.path


#: An image as the file that was sent: whether it can be read is for the plan to say, in its own words. For a subclass
#: Gradio's metaclass would write a file beside this module, so the class is made without it.
InputImage: Any = ABCMeta.__new__(
    type(gr.Image),
    "InputImage",
    (gr.Image,),
    {"preprocess": _path_of, "get_block_name": lambda _image: "image", "__module__": __name__},
)


@frozen(kw_only=True)
class Layout:
    """The components that listeners know."""

    blocks: gr.Blocks
    source: gr.State
    #: form fields by name, and how many there are of those that differ from folder to folder
    form: dict[str, Any]
    counts: FieldCounts
    folder: gr.Textbox
    open: gr.Button
    task: gr.Radio
    model: gr.HTML
    absent: gr.HTML
    lora_note: gr.HTML
    #: prompts to choose from, where a model has some
    examples: gr.Dropdown
    forecast: gr.HTML
    #: what is wrong with the form, and with what was asked for with a button: each has its own place, so that the one
    #: does not wipe out the other, whichever answer comes first
    problem: gr.HTML
    refused: gr.HTML
    generate: gr.Button
    keep_seed: gr.Button
    #: the job that a tab finds when it opens
    entered: gr.Textbox
    #: the id of the job that is shown, and what of it was shown last
    job: gr.Textbox
    seen: gr.State
    timer: gr.Timer
    status: gr.HTML
    preview: gr.HTML
    cancel: gr.Button
    result: gr.HTML
    jobs: gr.HTML
    afterwards: gr.Column
    reuse: gr.Button
    record: gr.JSON
    gallery: gr.HTML

    @property
    def all_outputs(self) -> list[Any]:
        """The components that depend on the options of a folder."""
        return [
            *self.form.values(), self.source, self.folder, self.task, self.model, self.absent, self.lora_note,
            self.examples, self.forecast, self.problem, self.refused, self.job, self.seen, self.timer,
        ]  # fmt: skip

    @property
    def job_outputs(self) -> list[Any]:
        """What a job changes."""
        return [
            self.status, self.preview, self.jobs, self.seen, self.result, self.cancel, self.afterwards, self.record,
            self.gallery, self.timer,
        ]  # fmt: skip


def build(first: FolderOptions) -> Layout:
    """The page for the options of a folder."""
    counts = field_counts(first)
    shown = fields(first, Settings(), counts)
    parts: dict[str, Any] = {"counts": counts}
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 7 * 86400)
    ) as blocks:
        parts["source"] = gr.State(first.source)
        parts["job"] = gr.Textbox(visible="hidden", elem_id="job", label="job")
        parts["entered"] = gr.Textbox(visible="hidden", elem_id="entered", label="entered")
        parts["seen"] = gr.State("")
        parts["timer"] = gr.Timer(0.6, active=True)
        gr.HTML("<h1>lightx2v-core</h1><p>Videos from words, images and videos.</p>", elem_classes="lx-title")
        with gr.Row():
            with gr.Column(scale=5, min_width=330):
                form = _left(first, shown, parts)
            with gr.Column(scale=6, min_width=330):
                _right(parts)
    return Layout(blocks=blocks, form=form, **parts)


def _left(first: FolderOptions, shown: dict[str, Field], parts: dict[str, Any]) -> dict[str, Any]:
    """What is asked for."""
    form: dict[str, Any] = {}
    parts["model"] = gr.HTML(panels.model(first), elem_id="model", elem_classes="lx-card")
    with gr.Accordion("Another model", open=False):
        parts["folder"] = gr.Textbox(
            first.source.folder,
            label="Model folder",
            info="a folder on the machine that runs this page",
            elem_id="folder",
        )
        parts["open"] = gr.Button("Open this folder", elem_id="open")
    parts["task"] = gr.Radio(
        list(first.tasks), value=first.plan.task, label="Task", visible=len(first.tasks) > 1, elem_id="task"
    )
    form["prompt"] = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, autofocus=True, elem_id="prompt",
        placeholder=shown["prompt"].placeholder, info="what the video shows; Shift and Enter starts it",
    )  # fmt: skip
    parts["examples"] = gr.Dropdown(
        list(first.examples), value=None, label="Examples", info="prompts that this model understands",
        visible=bool(first.examples), filterable=False, elem_id="examples",
    )  # fmt: skip
    for name, (label, kind) in INPUTS.items():
        form[name] = _input(name, label, kind, shown[name])
    with gr.Row(elem_classes="lx-numbers"):
        form["size"] = _dropdown(shown["size"], "Resolution", "size")
        form["frames"] = _number(shown["frames"], "Frames", "frames")
    with gr.Row(elem_classes="lx-numbers"):
        form["width"] = _number(shown["width"], "Width", "width")
        form["height"] = _number(shown["height"], "Height", "height")
    with gr.Row(elem_classes="lx-numbers", equal_height=True):
        form["seed"] = _number(shown["seed"], "Seed", "seed", info="the same seed makes the same video")
        form["random_seed"] = gr.Checkbox(True, label="Random seed", elem_id="random_seed")
    # what is found out while somebody presses the button must not move it from under the finger: that is no click
    parts["generate"] = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
    parts["problem"] = gr.HTML("", elem_id="problem")
    parts["refused"] = gr.HTML("", elem_id="refused")
    parts["forecast"] = gr.HTML(panels.forecast(first.plan), elem_id="forecast")
    _advanced(form, shown, parts, first)
    return form


def _advanced(
    form: dict[str, Any], shown: dict[str, Field], parts: dict[str, Any], first: FolderOptions
) -> None:
    with gr.Accordion("Sampling", open=False):
        form["negative_prompt"] = gr.Textbox(
            shown["negative_prompt"].value, label="Negative prompt", lines=2, max_lines=6,
            info="what it should not show, in the model's own words; empty: none", elem_id="negative_prompt",
        )  # fmt: skip
        with gr.Row(elem_classes="lx-numbers"):
            form["steps"] = _number(shown["steps"], "Steps", "steps", info="more take longer")
            form["guidance"] = _number(shown["guidance"], "Guidance scale", "guidance")
            form["guidance_low"] = _number(
                shown["guidance_low"], "Guidance scale, low-noise network", "guidance_low"
            )
        with gr.Row(elem_classes="lx-numbers"):
            form["shift"] = _number(shown["shift"], "Shift", "shift")
            form["fps"] = _number(shown["fps"], "FPS", "fps")
        form["scheduler"] = _dropdown(shown["scheduler"], "Scheduler", "scheduler")
    with gr.Accordion("LoRA files", open=False):
        for slot in range(parts["counts"].loras):
            with gr.Row(equal_height=True, elem_classes="lx-lora"):
                on, strength = shown[f"lora_on_{slot}"], shown[f"lora_strength_{slot}"]
                form[f"lora_on_{slot}"] = gr.Checkbox(
                    on.value,
                    label=on.label or "",
                    info=on.info,
                    visible=on.visible,
                    elem_id=f"lora_on_{slot}",
                )
                form[f"lora_strength_{slot}"] = gr.Number(
                    strength.value, label=strength.label or "", visible=strength.visible, step=0.1,
                    elem_id=f"lora_strength_{slot}", min_width=130,
                )  # fmt: skip
        parts["lora_note"] = gr.HTML(
            panels.loras(first, without_room(first, parts["counts"])), elem_id="lora_note"
        )
    with gr.Accordion("Precision, speed and memory", open=False):
        for slot in range(parts["counts"].precisions):
            form[f"precision_{slot}"] = _dropdown(
                shown[f"precision_{slot}"], "Precision", f"precision_{slot}"
            )
        form["tiny_vae"] = gr.Checkbox(
            False, label="Tiny VAE", info="decodes faster and with less memory, and with less detail",
            visible=shown["tiny_vae"].visible, elem_id="tiny_vae",
        )  # fmt: skip
        form["attention"] = _dropdown(shown["attention"], "Attention", "attention")
        form["offloader"] = _dropdown(
            shown["offloader"],
            "Offload",
            "offloader",
            info="where weights wait while they are not at work",
        )
        with gr.Row(elem_classes="lx-numbers"):
            form["vram_limit"] = _number(shown["vram_limit"], "VRAM limit, GB", "vram_limit",
                                         info="empty: all of it")  # fmt: skip
            form["ram_limit"] = _number(shown["ram_limit"], "RAM limit, GB", "ram_limit",
                                        info="empty: all of it")  # fmt: skip
    with gr.Accordion("What is not here", open=False):
        parts["absent"] = gr.HTML(
            panels.absent(first, without_room(first, parts["counts"])), elem_id="absent"
        )


def _right(parts: dict[str, Any]) -> None:
    """What comes of it."""
    parts["status"] = gr.HTML(panels.status(None, 0), elem_id="status", elem_classes="lx-card")
    parts["preview"] = gr.HTML("", elem_id="preview")
    parts["cancel"] = gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel")
    parts["jobs"] = gr.HTML("", elem_id="jobs", js_on_load=PRESSED)
    parts["result"] = gr.HTML("", elem_id="result")
    with gr.Column(visible=False) as afterwards:
        with gr.Row():
            parts["reuse"] = gr.Button("Use these settings", elem_id="reuse")
            parts["keep_seed"] = gr.Button("Keep this seed", elem_id="again")
        with gr.Accordion("Run record", open=False):
            parts["record"] = gr.JSON(None, show_label=False, elem_id="record")
    parts["afterwards"] = afterwards
    parts["gallery"] = gr.HTML("", elem_id="results", js_on_load=PRESSED)


def _input(name: str, label: str, kind: str, field: Field) -> Any:
    common: dict[str, Any] = {"label": field.label or label, "visible": field.visible, "elem_id": name}
    if kind == "image":
        return InputImage(type="filepath", sources=["upload"], image_mode=None, height=220, **common)
    if kind == "images":
        return gr.File(file_count="multiple", file_types=["image"], type="filepath", height=160, **common)
    return gr.File(file_types=_VIDEOS, type="filepath", height=120, **common)


def _number(field: Field, label: str, name: str, info: str | None = None) -> gr.Number:
    return gr.Number(
        field.value, label=field.label or label, info=field.info or info, visible=field.visible,
        step=field.step or 0.1, placeholder=field.placeholder, elem_id=name, min_width=120,
    )  # fmt: skip


def _dropdown(field: Field, label: str, name: str, info: str | None = None) -> gr.Dropdown:
    return gr.Dropdown(
        list(field.choices), value=field.value, label=field.label or label, info=field.info or info,
        visible=field.visible, elem_id=name, filterable=False, min_width=160,
    )  # fmt: skip
