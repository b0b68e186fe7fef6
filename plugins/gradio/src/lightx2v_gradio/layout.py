"""The components of the page and their places; listeners are attached elsewhere."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Sequence
from typing import Any

import gradio as gr
from attrs import frozen

from lightx2v_gradio import panels
from lightx2v_gradio.form import INPUTS, Field, FieldCounts, field_counts, fields, without_room
from lightx2v_gradio.options import FolderOptions
from lightx2v_gradio.settings import Settings
from lightx2v_gradio.style import PRESSED, PROMPT_PRESSED
from lightx2v_gradio.texts import Texts

TITLE = "lightx2v-core"
_VIDEOS = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"]


def _path_of(_image: Any, payload: Any) -> Any:
    return None if payload is None else payload.path


#: An image component that passes on the uploaded file: the plan reports unreadable files. For a plain subclass, the
#: metaclass of Gradio would write a file next to this module, so the class is created without it.
InputImage: Any = ABCMeta.__new__(
    type(gr.Image),
    "InputImage",
    (gr.Image,),
    {"preprocess": _path_of, "get_block_name": lambda _image: "image", "__module__": __name__},
)


@frozen(kw_only=True)
class Layout:
    """The components that listeners use."""

    blocks: gr.Blocks
    language: gr.Button
    source: gr.State
    #: form fields by name, and the numbers of those that differ from folder to folder
    form: dict[str, Any]
    counts: FieldCounts
    folder: gr.Textbox
    open: gr.Button
    task: gr.Radio
    model: gr.HTML
    absent: gr.HTML
    lora_note: gr.HTML
    #: example prompts, as buttons
    examples: gr.HTML
    forecast: gr.HTML
    #: errors of the form, and of the last click on a button: two places, so that neither answer overwrites the other
    problem: gr.HTML
    refused: gr.HTML
    generate: gr.Button
    keep_seed: gr.Button
    #: the job that a tab shows when it opens
    entered: gr.Textbox
    #: the id of the job that is shown, and the state of it that was rendered last
    job: gr.Textbox
    seen: gr.State
    timer: gr.Timer
    #: shown while there is no status
    empty: gr.HTML
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
        """Return the components that depend on the options of a folder."""
        return [
            *self.form.values(), self.source, self.folder, self.task, self.model, self.absent, self.lora_note,
            self.examples, self.empty, self.forecast, self.problem, self.refused, self.job, self.seen, self.timer,
        ]  # fmt: skip

    @property
    def job_outputs(self) -> list[Any]:
        """Return the components that a job changes."""
        return [
            self.status, self.preview, self.jobs, self.seen, self.result, self.cancel, self.afterwards, self.record,
            self.gallery, self.timer,
        ]  # fmt: skip


def build(first: FolderOptions, texts: Texts) -> Layout:
    """Build the page for the options of a folder, in the language of ``texts``."""
    counts = field_counts(first)
    shown = fields(first, Settings(), counts, texts)
    parts: dict[str, Any] = {"counts": counts}
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 7 * 86400)
    ) as blocks:
        parts["source"] = gr.State(first.source)
        parts["job"] = gr.Textbox(visible="hidden", elem_id="job", label="job")
        parts["entered"] = gr.Textbox(visible="hidden", elem_id="entered", label="entered")
        parts["seen"] = gr.State("")
        parts["timer"] = gr.Timer(0.6, active=True)
        with gr.Row(elem_classes="lx-top"):
            gr.HTML(panels.title(texts), elem_classes="lx-title")
            parts["language"] = gr.Button(
                texts("page.other_language"), size="sm", scale=0, min_width=90, elem_id="language"
            )
        with gr.Row():
            with gr.Column(scale=5, min_width=330):
                form = _left(texts, first, shown, parts)
            with gr.Column(scale=6, min_width=330, elem_classes="lx-right"):
                _right(texts, first, parts)
    return Layout(blocks=blocks, form=form, **parts)


def _left(
    texts: Texts, first: FolderOptions, shown: dict[str, Field], parts: dict[str, Any]
) -> dict[str, Any]:
    """Build the form."""
    form: dict[str, Any] = {}
    parts["model"] = gr.HTML(panels.model(first), elem_id="model", elem_classes="lx-card")
    with gr.Accordion(texts("model.change"), open=False):
        parts["folder"] = gr.Textbox(
            first.source.folder,
            label=texts("model.folder"),
            info=texts("model.folder.info"),
            elem_id="folder",
        )
        parts["open"] = gr.Button(texts("model.open"), elem_id="open")
    parts["task"] = gr.Radio(
        task_choices(texts, first.tasks), value=first.plan.task, label=texts("task"),
        visible=len(first.tasks) > 1, elem_id="task",
    )  # fmt: skip
    form["prompt"] = gr.Textbox(
        label=texts("prompt"), lines=3, max_lines=8, autofocus=True, elem_id="prompt",
        placeholder=shown["prompt"].placeholder, info=texts("prompt.info"),
    )  # fmt: skip
    parts["examples"] = gr.HTML(panels.examples(texts, first), elem_id="examples", js_on_load=PROMPT_PRESSED)
    for name, kind in INPUTS.items():
        form[name] = _input(name, kind, shown[name])
    with gr.Row(elem_classes="lx-numbers"):
        form["size"] = _dropdown(texts, shown["size"], "size")
        form["frames"] = _number(texts, shown["frames"], "frames")
    with gr.Row(elem_classes="lx-numbers"):
        form["width"] = _number(texts, shown["width"], "width")
        form["height"] = _number(texts, shown["height"], "height")
    with gr.Row(elem_classes="lx-numbers", equal_height=True):
        form["seed"] = _number(texts, shown["seed"], "seed", info="seed.info")
        form["random_seed"] = gr.Checkbox(True, label=texts("seed.random"), elem_id="random_seed")
    # errors stand below the button: above, they would move it while it is pressed, and the click would be lost
    parts["generate"] = gr.Button(texts("generate"), variant="primary", size="lg", elem_id="generate")
    parts["problem"] = gr.HTML("", elem_id="problem")
    parts["refused"] = gr.HTML("", elem_id="refused")
    parts["forecast"] = gr.HTML(panels.forecast(texts, first.plan), elem_id="forecast")
    _advanced(texts, form, shown, parts, first)
    return form


def _advanced(
    texts: Texts, form: dict[str, Any], shown: dict[str, Field], parts: dict[str, Any], first: FolderOptions
) -> None:
    """Build the folded parts of the form."""
    with gr.Accordion(texts("sampling"), open=False):
        form["negative_prompt"] = gr.Textbox(
            shown["negative_prompt"].value, label=texts("negative_prompt"), lines=2, max_lines=6,
            info=texts("negative_prompt.info"), elem_id="negative_prompt",
        )  # fmt: skip
        with gr.Row(elem_classes="lx-numbers"):
            form["steps"] = _number(texts, shown["steps"], "steps", info="steps.info")
            form["guidance"] = _number(texts, shown["guidance"], "guidance")
            form["guidance_low"] = _number(texts, shown["guidance_low"], "guidance_low", label="guidance.low")
        with gr.Row(elem_classes="lx-numbers"):
            form["shift"] = _number(texts, shown["shift"], "shift")
            form["fps"] = _number(texts, shown["fps"], "fps")
        form["scheduler"] = _dropdown(texts, shown["scheduler"], "scheduler")
    out = without_room(first, parts["counts"])
    with gr.Accordion(texts("lora"), open=False):
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
        parts["lora_note"] = gr.HTML(panels.loras(texts, first, out), elem_id="lora_note")
    with gr.Accordion(texts("machine"), open=False):
        for slot in range(parts["counts"].precisions):
            name = f"precision_{slot}"
            form[name] = _dropdown(texts, shown[name], name, label="precision")
        form["tiny_vae"] = gr.Checkbox(
            False, label=texts("tiny_vae"), info=texts("tiny_vae.info"), visible=shown["tiny_vae"].visible,
            elem_id="tiny_vae",
        )  # fmt: skip
        form["attention"] = _dropdown(texts, shown["attention"], "attention")
        form["offloader"] = _dropdown(texts, shown["offloader"], "offloader", info="offloader.info")
        with gr.Row(elem_classes="lx-numbers"):
            form["vram_limit"] = _number(texts, shown["vram_limit"], "vram_limit", info="limit.info")
            form["ram_limit"] = _number(texts, shown["ram_limit"], "ram_limit", info="limit.info")
    with gr.Accordion(texts("absent"), open=False):
        parts["absent"] = gr.HTML(panels.absent(texts, first, out), elem_id="absent")


def _right(texts: Texts, first: FolderOptions, parts: dict[str, Any]) -> None:
    """Build the part for jobs and results."""
    parts["empty"] = gr.HTML(panels.empty(texts, first), elem_id="empty", elem_classes="lx-card")
    parts["status"] = gr.HTML("", elem_id="status", elem_classes="lx-card")
    parts["preview"] = gr.HTML("", elem_id="preview")
    parts["cancel"] = gr.Button(texts("cancel"), variant="secondary", visible=False, elem_id="cancel")
    parts["jobs"] = gr.HTML("", elem_id="jobs", js_on_load=PRESSED)
    parts["result"] = gr.HTML("", elem_id="result")
    with gr.Column(visible=False) as afterwards:
        with gr.Row():
            parts["reuse"] = gr.Button(texts("reuse"), elem_id="reuse")
            parts["keep_seed"] = gr.Button(texts("keep_seed"), elem_id="again")
        with gr.Accordion(texts("record"), open=False):
            parts["record"] = gr.JSON(None, show_label=False, elem_id="record")
    parts["afterwards"] = afterwards
    parts["gallery"] = gr.HTML("", elem_id="results", js_on_load=PRESSED)


def task_choices(texts: Texts, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels and names of tasks."""
    return [(texts.named("task", task), task) for task in tasks]


def _input(name: str, kind: str, field: Field) -> Any:
    common: dict[str, Any] = {"label": field.label, "visible": field.visible, "elem_id": name}
    if kind == "image":
        return InputImage(type="filepath", sources=["upload"], image_mode=None, height=220, **common)
    if kind == "images":
        return gr.File(file_count="multiple", file_types=["image"], type="filepath", height=160, **common)
    return gr.File(file_types=_VIDEOS, type="filepath", height=120, **common)


def _number(
    texts: Texts, field: Field, name: str, info: str | None = None, label: str | None = None
) -> gr.Number:
    """Build a field for a number; ``label`` and ``info`` are keys, for fields without a text of their own."""
    return gr.Number(
        field.value, label=field.label or texts(label or name), info=field.info or (texts(info) if info else None),
        visible=field.visible, step=field.step or 0.1, placeholder=field.placeholder, elem_id=name, min_width=120,
    )  # fmt: skip


def _dropdown(
    texts: Texts, field: Field, name: str, info: str | None = None, label: str | None = None
) -> gr.Dropdown:
    """Build a list of choices; ``label`` and ``info`` are keys, for fields without a text of their own."""
    return gr.Dropdown(
        list(field.choices), value=field.value, label=field.label or texts(label or name),
        info=field.info or (texts(info) if info else None), visible=field.visible, elem_id=name, filterable=False,
        min_width=160,
    )  # fmt: skip
