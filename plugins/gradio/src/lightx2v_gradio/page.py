"""The page: Gradio's components and their listeners. Other modules decide what the components show."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from attrs import evolve, frozen

from lightx2v_core.api import LightX2VError, PluginSet
from lightx2v_gradio import panels
from lightx2v_gradio.form import FREE, INPUTS, Field, fields, read_settings, without_room
from lightx2v_gradio.forms_kept import KeptForms
from lightx2v_gradio.gateway import session_id
from lightx2v_gradio.jobs import JobView, Queue, newest
from lightx2v_gradio.language import switch_script
from lightx2v_gradio.layout import Layout, build, task_choices
from lightx2v_gradio.options import FolderOptions, ModelSource
from lightx2v_gradio.options_cache import OptionsCache
from lightx2v_gradio.results import UPLOADS
from lightx2v_gradio.runner import Order
from lightx2v_gradio.settings import Settings, from_record, plan_settings, random_seed
from lightx2v_gradio.style import SHOW_IN_ADDRESS, THE_LATER, TO_THE_VIDEO
from lightx2v_gradio.texts import TEXTS, Texts

Updates = dict[Any, Any]


@frozen(kw_only=True)
class Shared:
    """The state that the pages of all languages share. ``first`` has the options that a new tab shows."""

    first: FolderOptions
    plugins: PluginSet
    options: OptionsCache
    queue: Queue
    output: Path
    kept: KeptForms


def build_pages(first: FolderOptions, plugins: PluginSet, queue: Queue, output: Path) -> dict[str, Page]:
    """Build the page in every language."""
    shared = Shared(
        first=first,
        plugins=plugins,
        options=OptionsCache(first, plugins),
        queue=queue,
        output=output,
        kept=KeptForms(),
    )
    return {language: Page(shared, texts) for language, texts in TEXTS.items()}


class Page:
    """The page in one language, with its listeners. One object serves all tabs; their state is in the components."""

    def __init__(self, shared: Shared, texts: Texts) -> None:
        self._first, self._plugins, self._queue = shared.first, shared.plugins, shared.queue
        self._output, self._options, self._kept = shared.output, shared.options, shared.kept
        self._texts = texts
        self.layout: Layout = build(shared.first, texts)
        self._wire()

    def _wire(self) -> None:
        at, form = self.layout, self.layout.form
        slow: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        quick: dict[str, Any] = {**slow, "show_progress": "hidden"}
        everything = [*form.values()]
        with at.blocks:
            # the answer may arrive after a click on Generate, whose job must stay
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
                trigger_mode="multiple",  # each click is a video, even while the previous one is being submitted
                **quick,
            ).then(fn=None, inputs=[at.problem, at.refused], js=TO_THE_VIDEO, **slow)
            at.examples.click(self._pick_prompt, None, [form["prompt"]], **quick)
            other = next(texts for texts in TEXTS.values() if texts.language != self._texts.language)
            at.language.click(self._keep_form, {at.source, *everything}, None, **quick).then(
                fn=None, js=switch_script(other), **slow
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

    # the listeners

    def _enter(self, request: gr.Request) -> Updates:
        """Fill a tab that was opened or loaded again: with its job, or the session's newest one."""
        session = session_id(request.headers)
        view = self._queue.view(session, request.query_params.get("job")) or newest(
            self._queue.views(session)
        )
        entered: Updates = {
            self.layout.entered: "" if view is None else view.id,
            self.layout.seen: "",
            self.layout.timer: gr.update(active=True),
        }
        if (kept := self._kept.take(session)) is not None:
            return {**self._form_updates(self._options.get_cached(kept[0]), kept[1]), **entered}
        if view is None or view.ended:
            # the form may be in use already; only empty numbers are set, which Gradio would turn into 0
            shown = fields(self._first, Settings(), self.layout.counts, self._texts)
            empty = {name: field for name, field in shown.items() if field.value is None}
            return {
                **{self.layout.form[name]: field_update(field) for name, field in empty.items()},
                **entered,
            }
        options = self._options.get_cached(view.order.options.source)
        return {**self._form_updates(options, view.order.settings), **entered}

    async def _open(self, source: ModelSource, folder: str) -> Updates:
        """Open the folder that a user entered."""
        try:
            options = await self._options.get(evolve(source, folder=folder.strip(), task=None))
        except LightX2VError as exc:
            return {self.layout.refused: self._problem(exc)}
        return self._form_updates(options, Settings())

    async def _change_task(self, source: ModelSource, task: str) -> Updates:
        try:
            options = await self._options.get(evolve(source, task=task))
        except LightX2VError as exc:
            return {self.layout.refused: self._problem(exc)}
        return self._form_updates(options, Settings())

    def _form_updates(self, options: FolderOptions, settings: Settings) -> Updates:
        """Return the updates of all components that depend on the options of a folder."""
        at, texts = self.layout, self._texts
        shown, out = fields(options, settings, at.counts, texts), without_room(options, at.counts)
        kept: Updates = {}
        if not settings.prompt:
            placeholder = shown.pop("prompt").placeholder  # a typed prompt stays when the folder changes
            kept = {at.form["prompt"]: gr.update(placeholder=placeholder)}
        return {
            **{at.form[name]: field_update(field) for name, field in shown.items()},
            **kept,
            at.examples: panels.examples(texts, options),
            at.empty: panels.empty(texts, options),
            at.source: options.source,
            at.folder: options.source.folder,
            at.task: gr.update(
                choices=task_choices(texts, options.tasks),
                value=options.plan.task,
                visible=len(options.tasks) > 1,
            ),
            at.model: panels.model(options),
            at.absent: panels.absent(texts, options, out),
            at.lora_note: panels.loras(texts, options, out),
            at.refused: "",
            **self._forecast(options, settings),
        }

    def _forecast(self, options: FolderOptions, settings: Settings) -> Updates:
        """Return the updates for the plan of settings, or for its error."""
        at = self.layout
        try:
            plan = plan_settings(settings, options, self._plugins)
        except LightX2VError as exc:
            return {at.forecast: "", at.problem: self._problem(exc)}
        return {at.forecast: panels.forecast(self._texts, plan), at.problem: ""}

    @staticmethod
    def _free_size(size: str) -> tuple[Any, Any]:
        free = size == FREE
        return gr.update(visible=free), gr.update(visible=free)

    def _check(self, data: Mapping[Any, Any]) -> Updates:
        """Plan the form after a change."""
        at = self.layout
        try:
            options = self._options.get_cached(data[at.source])
            return self._forecast(options, read_settings(self._values(data), options))
        except LightX2VError as exc:
            return {at.forecast: "", at.problem: self._problem(exc)}

    def _submit(self, data: Mapping[Any, Any], request: gr.Request) -> Updates:
        """Put a video into the queue; it is planned first, so that errors are reported at once."""
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
            # an error of the form is shown below the button already
            return {**form, at.refused: "" if form[at.problem] else self._problem(exc)}
        view = self._queue.view(session_id(request.headers), job)
        return {
            at.job: job,
            at.problem: "",
            at.refused: "",
            at.seen: "",
            at.timer: gr.update(active=True),
            at.status: panels.status(self._texts, view, time.monotonic()),
        }

    def _poll(self, job: str, seen: str, request: gr.Request) -> Updates:
        """Return the updates for the current state of a job; unchanged parts are left out."""
        at = self.layout
        session = session_id(request.headers)
        views = self._queue.views(session)
        view = self._queue.view(session, job)
        made = [other for other in reversed(views) if other.made is not None]
        now = f"{job} {view.state if view else ''} {made[0].id if made else ''}"
        changes: Updates = {
            at.status: panels.status(self._texts, view, time.monotonic()),
            at.jobs: panels.jobs(self._texts, views, job),
            at.preview: panels.preview(self._texts, view),
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
            at.result: panels.result(self._texts, view),
            at.cancel: gr.update(visible=view is not None and not view.ended and not view.cancelling),
            at.afterwards: gr.update(visible=is_made),
            at.record: dict(view.made.record) if view is not None and view.made is not None else None,
            at.gallery: panels.gallery(self._texts, made, None if view is None else view.id),
        }

    def _cancel(self, job: str, request: gr.Request) -> tuple[Any, Any, Any]:
        self._queue.cancel(session_id(request.headers), job)
        return "", gr.update(active=True), gr.update(visible=False)

    @staticmethod
    def _pick(event: gr.EventData) -> tuple[Any, Any]:
        """Show the job that was clicked in a list; its session is checked when it is rendered."""
        job = (event._data or {}).get("job")
        return (job, "") if isinstance(job, str) else (gr.skip(), gr.skip())

    @staticmethod
    def _pick_prompt(event: gr.EventData) -> Any:
        """Copy the example that was clicked into the prompt."""
        prompt = (event._data or {}).get("prompt")
        return prompt if isinstance(prompt, str) else gr.skip()

    def _keep_form(self, data: Mapping[Any, Any], request: gr.Request) -> None:
        """Keep the form for the same page in another language; of an invalid form, only the prompt."""
        source, values = data[self.layout.source], self._values(data)
        try:
            settings = read_settings(values, self._options.get_cached(source))
        except LightX2VError:
            settings = Settings(prompt=values["prompt"] or "")
        self._kept.keep(session_id(request.headers), source, settings)

    def _keep_seed(self, job: str, request: gr.Request) -> tuple[Any, Any]:
        """Fill in the seed of the shown video."""
        view = self._queue.view(session_id(request.headers), job)
        if view is None:
            return gr.skip(), gr.skip()
        return view.order.settings.seed, False

    def _reuse(self, source: ModelSource, job: str, request: gr.Request) -> Updates:
        """Fill in the settings of the shown video."""
        view = self._queue.view(session_id(request.headers), job)
        if view is None or view.made is None:
            return {self.layout.source: source}
        settings = (
            from_record(view.made.record, view.order.settings) if view.made.record else view.order.settings
        )
        return self._form_updates(view.order.options, settings)

    def _values(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        return {name: data[component] for name, component in self.layout.form.items()}

    def _problem(self, exc: LightX2VError) -> str:
        """Show an error, without the folders of uploads, which mean nothing to their sender."""
        folders = re.escape(str(self._output / UPLOADS)) + r"/[0-9a-f]+/"
        return panels.problem(re.sub(folders, "", self._texts.error(exc)))


def field_update(field: Field) -> Any:
    """Build the update of a component from a field."""
    update: dict[str, Any] = {"value": field.value, "visible": field.visible}
    for name in ("label", "info", "placeholder", "step"):
        if (value := getattr(field, name)) is not None:
            update[name] = value
    if field.choices:
        update["choices"] = list(field.choices)
    return gr.update(**update)
