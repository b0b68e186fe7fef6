"""The work of the queue: keeps one model loaded, and loads another one when a job requires it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.api import Emit, Event, LightX2VError, Pipeline, PluginSet, StepDone, load
from lightx2v_gradio.jobs import JobResult
from lightx2v_gradio.options import Config, FolderOptions
from lightx2v_gradio.previews import Previewer, previewer, sample_frames, thumbnail
from lightx2v_gradio.results import free_name, read_record
from lightx2v_gradio.settings import Settings, load_config, lora_config, request

#: most previews of one video; the last step always has one
_PREVIEWS = 12

Show = Callable[[bytes], None]


@frozen(kw_only=True)
class Order:
    """A job of the page: the options of its model and the chosen settings, with a seed."""

    options: FolderOptions
    settings: Settings


class Runner:
    """The work of a ``Queue``, called by one thread. ``close`` releases the model's memory."""

    def __init__(self, plugins: PluginSet, output: Path, cache: Path) -> None:
        self._plugins, self._output, self._cache = plugins, output, cache
        self._key = ""
        self._pipeline: Pipeline | None = None
        self._previewer: Previewer | None = None

    def __call__(self, order: Order, emit: Emit, show: Show) -> JobResult:
        """Generate one video. Raises the errors of the run; an exception of ``emit`` ends it."""
        settings = order.settings
        pipeline = self._loaded(order, emit)
        pipeline.set_loras(lora_config(settings))
        arguments = request(settings, order.options)
        assert settings.seed is not None
        name = free_name(settings.prompt, settings.seed, one_frame=settings.frames == 1, now=datetime.now())
        listener = _PreviewListener(emit, show, self._previewer)
        try:
            path = pipeline.write(self._output / name, on_event=listener, **arguments)
        except LightX2VError:
            raise
        except Exception:
            self.close()  # its state is unknown
            raise
        frames = sample_frames(path)
        if self._previewer is not None and listener.last is not None:
            self._previewer.learn(listener.last, frames)
        record = read_record(self._output, name)
        return JobResult(
            file=name,
            record_file=Path(name).with_suffix(".json").name if record else None,
            record=record,
            thumbnail=thumbnail(frames[len(frames) // 2][1]) if frames else None,
        )

    def close(self) -> None:
        """Unload the model."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._key, self._pipeline, self._previewer = "", None, None

    def _loaded(self, order: Order, emit: Emit) -> Pipeline:
        """Return the model of an order; load it unless the loaded one has the same configuration."""
        source = order.options.source
        config: Config = load_config(order.settings, order.options)
        key = json.dumps([source.folder, order.options.plan.task, config], sort_keys=True, default=str)
        if self._pipeline is None or key != self._key:
            self.close()
            task: dict[str, Any] = {"task": order.options.plan.task}
            pipeline = load(source.folder, config=config, plugins=self._plugins, on_event=emit, **task)
            try:
                self._previewer = previewer(pipeline, self._cache)
            except BaseException:
                pipeline.close()
                raise
            self._pipeline, self._key = pipeline, key
        return self._pipeline


class _PreviewListener:
    """A listener of a run: passes its events on, and renders a preview every few steps."""

    def __init__(self, emit: Emit, show: Show, previewer: Previewer | None) -> None:
        self._emit, self._show, self._previewer = emit, show, previewer
        #: the clean latents of the last step, on the CPU
        self.last: Any = None

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if not isinstance(event, StepDone) or event.clean is None or self._previewer is None:
            return
        every = max(event.count // _PREVIEWS, 1)
        final = event.index + 1 == event.count
        if final or event.index % every == 0:
            latents = event.clean().float().cpu()
            if (image := self._previewer.png(latents)) is not None:
                self._show(image)
            self.last = latents if final else None
