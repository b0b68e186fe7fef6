"""The page: Gradio's components, and what happens when somebody uses them. What they show is decided elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from attrs import evolve

from lightx2v_core.api import LightX2VError, PluginSet
from lightx2v_gradio import panels
from lightx2v_gradio.form import FREE, INPUTS, Field, fields, read_settings, without_room
from lightx2v_gradio.gateway import session_id
from lightx2v_gradio.jobs import JobView, Queue, newest
from lightx2v_gradio.layout import Layout, build
from lightx2v_gradio.options import FolderOptions, ModelSource
from lightx2v_gradio.options_cache import OptionsCache
from lightx2v_gradio.results import UPLOADS
from lightx2v_gradio.runner import Order
from lightx2v_gradio.settings import Settings, from_record, plan_settings, random_seed
from lightx2v_gradio.style import SHOW_IN_ADDRESS, THE_LATER, TO_THE_VIDEO

Updates = dict[Any, Any]


class Page:
    """What happens on the page. One object serves all tabs; what belongs to a tab goes through its components."""

    def __init__(self, first: FolderOptions, plugins: PluginSet, queue: Queue, output: Path) -> None:
        self._first, self._plugins, self._queue, self._output = first, plugins, queue, output
        self._options = OptionsCache(first, plugins)
        self.layout: Layout = build(first)
        self._wire()

    def _wire(self) -> None:
        at, form = self.layout, self.layout.form
        slow: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        quick: dict[str, Any] = {**slow, "show_progress": "hidden"}
        everything = [*form.values()]
        with at.blocks:
            # the answer may come after a click on Generate, of which it knows nothing: that job stays
            at.blocks.load(self._enter, None, [*at.all_outputs, at.entered], **quick).then(
                fn=None, inputs=[at.entered, at.job], outputs=[at.job], js=THE_LATER, **slow
            )
            gr.on(
                [at.open.click, at.folder.submit],
                self._open,
                [at.source, at.folder],
                at.all_outputs,
                **slow,
            )
            at.task.input(self._change_task, [at.source, at.task], at.all_outputs, **slow)
            form["size"].change(self._free_size, [form["size"]], [form["width"], form["height"]], **quick)
            plan_triggers = [
                component.change for name, component in form.items() if name not in ("prompt", "seed")
            ]
            gr.on(
                plan_triggers,
                self._check,
                {at.source, *everything},
                [at.forecast, at.problem],
                trigger_mode="always_last",
                **quick,
            )
            gr.on(
                [at.generate.click, form["prompt"].submit],
                self._submit,
                {at.source, *everything},
                [at.job, at.forecast, at.problem, at.refused, at.seen, at.timer, at.status],
                trigger_mode="multiple",  # a click is a video, also while the one before is on its way
                **quick,
            ).then(fn=None, inputs=[at.problem, at.refused], js=TO_THE_VIDEO, **slow)
            # what is chosen stands in the prompt, to be changed there; the field is empty again then, so that passing
            # by it, which counts as input too, changes nothing
            at.examples.input(
                fn=None,
                inputs=[at.examples, form["prompt"]],
                outputs=[form["prompt"], at.examples],
                js="(text, prompt) => [text || prompt, null]",
                **slow,
            )
            answered = [form["prompt"].input, *(form[name].upload for name in INPUTS)]
            gr.on(answered, fn=None, outputs=[at.refused], js="() => ''", **slow)
            gr.on([at.timer.tick, at.job.change], self._poll, [at.job, at.seen], at.job_outputs,
                  trigger_mode="always_last", **quick)  # fmt: skip
            at.job.change(fn=None, inputs=[at.job], js=SHOW_IN_ADDRESS, **slow)
            at.cancel.click(self._cancel, [at.job], [at.seen, at.timer, at.cancel], **quick)
            gr.on([at.gallery.click, at.jobs.click], self._pick, None, [at.job, at.seen], **quick)
            at.keep_seed.click(self._keep_seed, [at.job], [form["seed"], form["random_seed"]], **quick)
            at.reuse.click(self._reuse, [at.source, at.job], at.all_outputs, **quick)

    # what the listeners do

    def _enter(self, request: gr.Request) -> Updates:
        """A tab was opened or loaded again: it shows its job, or the session's newest one."""
        session = session_id(request.headers)
        asked = request.query_params.get("job")
        view = self._queue.view(session, asked) or newest(self._queue.views(session))
        entered: Updates = {
            self.layout.entered: "" if view is None else view.id,
            self.layout.seen: "",
            self.layout.timer: gr.update(active=True),
        }
        if view is None or view.ended:
            # somebody may be using the form already; but Gradio makes a 0 of a number that starts empty
            shown = fields(self._first, Settings(), self.layout.counts)
            empty = {name: field for name, field in shown.items() if field.value is None}
            return {
                **{self.layout.form[name]: field_update(field) for name, field in empty.items()},
                **entered,
            }
        options = self._options.get_cached(view.order.options.source)
        return {**self._form_updates(options, view.order.settings), **entered}

    async def _open(self, source: ModelSource, folder: str) -> Updates:
        """Somebody named a folder."""
        try:
            options = await self._options.get(evolve(source, folder=folder.strip(), task=None))
        except LightX2VError as exc:
            return {self.layout.refused: panels.problem(self._public_message(exc))}
        return self._form_updates(options, Settings())

    async def _change_task(self, source: ModelSource, task: str) -> Updates:
        try:
            options = await self._options.get(evolve(source, task=task))
        except LightX2VError as exc:
            return {self.layout.refused: panels.problem(self._public_message(exc))}
        return self._form_updates(options, Settings())

    def _form_updates(self, options: FolderOptions, settings: Settings) -> Updates:
        """The updates of all that depends on the options of a folder."""
        at = self.layout
        shown, out = fields(options, settings, at.counts), without_room(options, at.counts)
        kept: Updates = {}
        if not settings.prompt:
            placeholder = shown.pop("prompt").placeholder  # what was typed stays when the folder changes
            kept = {at.form["prompt"]: gr.update(placeholder=placeholder)}
        return {
            **{at.form[name]: field_update(field) for name, field in shown.items()},
            **kept,
            at.examples: gr.update(
                choices=list(options.examples), value=None, visible=bool(options.examples)
            ),
            at.source: options.source,
            at.folder: options.source.folder,
            at.task: gr.update(
                choices=list(options.tasks), value=options.plan.task, visible=len(options.tasks) > 1
            ),
            at.model: panels.model(options),
            at.absent: panels.absent(options, out),
            at.lora_note: panels.loras(options, out),
            at.refused: "",
            **self._forecast(options, settings),
        }

    def _forecast(self, options: FolderOptions, settings: Settings) -> Updates:
        """What settings would do, or what is wrong with them."""
        at = self.layout
        try:
            plan = plan_settings(settings, options, self._plugins)
        except LightX2VError as exc:
            return {at.forecast: "", at.problem: panels.problem(self._public_message(exc))}
        return {at.forecast: panels.forecast(plan), at.problem: ""}

    @staticmethod
    def _free_size(size: str) -> tuple[Any, Any]:
        free = size == FREE
        return gr.update(visible=free), gr.update(visible=free)

    def _check(self, data: Mapping[Any, Any]) -> Updates:
        """Somebody chose something."""
        at = self.layout
        try:
            options = self._options.get_cached(data[at.source])
            return self._forecast(options, read_settings(self._values(data), options))
        except LightX2VError as exc:
            return {at.forecast: "", at.problem: panels.problem(self._public_message(exc))}

    def _submit(self, data: Mapping[Any, Any], request: gr.Request) -> Updates:
        """Put a video into the queue; it is planned first, so that what is wrong is said at once."""
        at = self.layout
        try:
            options = self._options.get_cached(data[at.source])
            settings = read_settings(self._values(data), options)
            if settings.seed is None:
                settings = evolve(settings, seed=random_seed())
            plan_settings(settings, options, self._plugins, ready=True)
            job = self._queue.submit(session_id(request.headers), Order(options=options, settings=settings))
        except LightX2VError as exc:
            form = self._check(data)
            # what is wrong with the form stands there already, below the button
            return {**form, at.refused: "" if form[at.problem] else panels.problem(self._public_message(exc))}
        view = self._queue.view(session_id(request.headers), job)
        return {
            at.job: job,
            at.problem: "",
            at.refused: "",
            at.seen: "",
            at.timer: gr.update(active=True),
            at.status: panels.status(view, time.monotonic()),
        }

    def _poll(self, job: str, seen: str, request: gr.Request) -> Updates:
        """The job as it is now; only what has changed is sent."""
        at = self.layout
        session = session_id(request.headers)
        views = self._queue.views(session)
        view = self._queue.view(session, job)
        made = [other for other in reversed(views) if other.made is not None]
        now = f"{job} {view.state if view else ''} {made[0].id if made else ''}"
        changes: Updates = {
            at.status: panels.status(view, time.monotonic()),
            at.jobs: panels.jobs(views, job),
            at.preview: panels.preview(view),
        }
        if now != seen:
            changes.update(self._result(view, made, now))
        if all(other.ended for other in views):
            changes[at.timer] = gr.update(active=False)
        return changes

    def _result(self, view: JobView | None, made: list[JobView], now: str) -> Updates:
        at = self.layout
        is_made = view is not None and view.made is not None
        return {
            at.seen: now,
            at.result: panels.result(view),
            at.cancel: gr.update(visible=view is not None and not view.ended and not view.cancelling),
            at.afterwards: gr.update(visible=is_made),
            at.record: dict(view.made.record) if view is not None and view.made is not None else None,
            at.gallery: panels.gallery(made, None if view is None else view.id),
        }

    def _cancel(self, job: str, request: gr.Request) -> tuple[Any, Any, Any]:
        self._queue.cancel(session_id(request.headers), job)
        return "", gr.update(active=True), gr.update(visible=False)

    @staticmethod
    def _pick(event: gr.EventData) -> tuple[Any, Any]:
        """A job of a list was pressed. Whose it is, is asked when it is shown."""
        job = (event._data or {}).get("job")
        return (job, "") if isinstance(job, str) else (gr.skip(), gr.skip())

    def _keep_seed(self, job: str, request: gr.Request) -> tuple[Any, Any]:
        """The seed of what is shown, for one more with it."""
        view = self._queue.view(session_id(request.headers), job)
        if view is None:
            return gr.skip(), gr.skip()
        return view.order.settings.seed, False

    def _reuse(self, source: ModelSource, job: str, request: gr.Request) -> Updates:
        """The settings of what is shown, in the form."""
        view = self._queue.view(session_id(request.headers), job)
        if view is None or view.made is None:
            return {self.layout.source: source}
        settings = (
            from_record(view.made.record, view.order.settings) if view.made.record else view.order.settings
        )
        return self._form_updates(view.order.options, settings)

    def _values(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        return {name: data[component] for name, component in self.layout.form.items()}

    def _public_message(self, exc: LightX2VError) -> str:
        """An error without the places that uploads lie in, which mean nothing to their sender."""
        return re.sub(re.escape(str(self._output / UPLOADS)) + r"/[0-9a-f]+/", "", str(exc))


def field_update(field: Field) -> Any:
    """The update of a component that shows a field."""
    update: dict[str, Any] = {"value": field.value, "visible": field.visible}
    for name in ("label", "info", "placeholder", "step"):
        if (value := getattr(field, name)) is not None:
            update[name] = value
    if field.choices:
        update["choices"] = list(field.choices)
    return gr.update(**update)
