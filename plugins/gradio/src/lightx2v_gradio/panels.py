"""The read-only parts of the page as HTML. All text from elsewhere is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from lightx2v_core.api import Plan, plan_text
from lightx2v_gradio.form import prompts
from lightx2v_gradio.jobs import JobView
from lightx2v_gradio.options import FolderOptions
from lightx2v_gradio.samples import find_sample
from lightx2v_gradio.texts import Message, Text, Texts, message

#: the characters that the templates of Gradio interpret, besides those of HTML
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def text(value: Any) -> str:
    """Escape text for HTML and for the templates of Gradio."""
    return html.escape(str(value), quote=True).translate(_TEMPLATE)


def title(texts: Texts) -> str:
    """Build the head of the page."""
    return f"<h1>lightx2v-core</h1><p>{text(texts('page.subtitle'))}</p>"


def model(options: FolderOptions) -> str:
    """Describe the model of a folder."""
    plan = options.plan
    return (
        f'<p class="lx-model"><strong>{text(plan.variant)}</strong> · {text(plan.summary)}<br>'
        f'<span class="lx-dim">{text(options.source.folder)} · {text(plan.device.name)} · {text(plan.dtype)}</span></p>'
    )


def problem(error: str) -> str:
    """Show an error message; nothing for an empty one."""
    if not error:
        return ""
    lines = "<br>".join(text(line.strip()) for line in error.splitlines() if line.strip())
    return f'<div class="lx-problem" role="alert">{lines}</div>'


def examples(texts: Texts, options: FolderOptions) -> str:
    """Build buttons for the example prompts; a click copies one into the prompt."""
    lines = [
        f'<li><button type="button" data-prompt="{text(prompt)}">{text(prompt)}</button></li>'
        for prompt in prompts(options, texts)
    ]
    head = texts("examples.known" if options.examples else "examples")
    return f'<p class="lx-head">{text(head)}</p><ul class="lx-examples">{"".join(lines)}</ul>'


def forecast(texts: Texts, plan: Plan) -> str:
    """Summarize a plan: size, steps and memory, with the full plan folded."""
    memory, request = plan.memory, plan.request
    on_cpu = plan.device.kind == "cpu"
    peak = memory.host_peak if on_cpu else memory.device_peak
    total = (memory.host_limit if on_cpu else memory.device_limit) or memory.device_total
    key = f"plan.{'memory' if on_cpu else 'device'}{'_of' if total else ''}"
    facts = [
        texts("plan.size", width=request.width, height=request.height, frames=request.frames,
              seconds=f"{request.frames / request.fps:.1f}"),
        texts("plan.steps", steps=request.steps, scheduler=request.scheduler),
        texts(key, peak=_gb(peak), total=_gb(total or 0)),
    ]  # fmt: skip
    notes = "".join(f"<li>{text(line)}</li>" for line in (*memory.details, *plan.warnings))
    return (
        f'<p class="lx-forecast"><strong>{text(texts("plan"))}</strong> {text(" · ".join(facts))}</p>'
        + (f'<ul class="lx-notes" lang="en">{notes}</ul>' if notes else "")
        + f'<details class="lx-plan"><summary>{text(texts("plan.whole"))}</summary>'
        + f'<pre lang="en">{text(plan_text(plan))}</pre></details>'
    )


def loras(texts: Texts, options: FolderOptions, out: Sequence[Message]) -> str:
    """Report a folder without LoRA files, or those in ``out``, for which the form has no room."""
    if not options.loras:
        return f'<p class="lx-dim">{text(texts("lora.none"))}</p>'
    return _list(texts, [line for line in out if line.key == "room.loras"])


def absent(texts: Texts, options: FolderOptions, out: Sequence[Message]) -> str:
    """List the unavailable options, and how to install missing ones; ``out``: those without room in the form."""
    parts = [
        f"<p>{text(texts(key))}</p>{_list(texts, lines)}"
        for key, lines in (
            ("absent.room", out),
            ("absent.missing", options.missing),
            ("absent.unusable", options.unusable),
        )
        if lines
    ]
    return "".join(parts) or f"<p>{text(texts('absent.none'))}</p>"


def status(texts: Texts, view: JobView | None, now: float) -> str:
    """Show the state of a job; nothing without one."""
    if view is None:
        return ""
    if view.state == "working":
        return _working(texts, view, now)
    if view.state == "failed":
        return problem(texts.show(view.message))
    if view.state == "waiting":
        before = view.before
        state = texts.counted("status.waiting", before) if before else texts("status.waiting.next")
    elif view.state == "cancelled":
        state = texts("status.cancelled")
    else:
        state = texts("status.done", duration=texts.duration(view.seconds))
    notes = _list(texts, view.warnings) if view.state == "done" else ""
    return f'<p role="status" class="lx-state">{text(state)}</p>{notes}'


def empty(texts: Texts, options: FolderOptions) -> str:
    """Explain how to start the first video, with a clip of the model where the page has one."""
    required = [message(f"input.{name}") for name in options.required]
    how = texts("status.empty.input", inputs=required) if required else texts("status.empty.how")
    return f'<p class="lx-head">{text(texts("status.empty"))}</p><p class="lx-dim">{text(how)}</p>' + _sample(
        texts, options
    )


def _sample(texts: Texts, options: FolderOptions) -> str:
    clip = find_sample(options, texts.language)
    if clip is None:
        return ""
    data = base64.b64encode(clip.video).decode()
    facts = texts("sample.facts", prompt=clip.prompt, seed=clip.seed)
    return (
        f'<figure class="lx-sample"><video controls loop autoplay muted playsinline aria-label="{text(clip.prompt)}" '
        f'src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption><strong>{text(texts('sample'))}</strong><br>{text(facts)}</figcaption></figure>"
    )


def preview(texts: Texts, view: JobView | None) -> str:
    """Show the latest preview of a working job."""
    if view is None or view.preview is None or view.state != "working":
        return ""
    data = base64.b64encode(view.preview).decode()
    return (
        f'<figure class="lx-preview"><img alt="{text(texts("preview.alt"))}" '
        f'src="data:image/png;base64,{data}"><figcaption>{text(texts("preview"))}</figcaption></figure>'
    )


def result(texts: Texts, view: JobView | None) -> str:
    """Show a finished video or image with its download links."""
    if view is None or view.made is None:
        return ""
    name, is_image = text(view.made.file), view.made.file.endswith(".png")
    request = view.made.record.get("request", {})
    shown = (
        f'<img class="lx-result" alt="{text(texts("result.alt"))}" src="results/{name}">'
        if is_image
        else f'<video class="lx-result" controls loop autoplay muted playsinline src="results/{name}"></video>'
    )
    links = [_link(texts("result.image" if is_image else "result.video"), name)]
    if view.made.record_file:
        links.append(_link(texts("result.record"), text(view.made.record_file)))
    names = ("width", "height", "frames", "steps", "seed")
    facts = texts("result.facts", **{key: request[key] for key in names}) if request else ""
    return f'{shown}<p class="lx-links">{" · ".join(links)}<br><span class="lx-dim">{text(facts)}</span></p>'


def jobs(texts: Texts, views: Sequence[JobView], shown: str | None) -> str:
    """List the unfinished jobs of a session as buttons; a click shows one."""
    waiting = [view for view in views if not view.ended]
    if not waiting or (len(waiting) == 1 and waiting[0].id == shown):
        return ""
    lines = []
    for view in waiting:
        key = "queue.entry.before" if view.state == "waiting" and view.before else "queue.entry"
        state = message(f"state.{view.state}")
        line = texts(key, title=prompt_title(texts, view), state=state, before=view.before)
        lines.append(_button(view, shown, text(line)))
    return f'<p class="lx-head">{text(texts("queue"))}</p><ol class="lx-queue">{"".join(lines)}</ol>'


def gallery(texts: Texts, made: Sequence[JobView], shown: str | None) -> str:
    """List the results of a session as buttons with thumbnails; a click shows one."""
    if not made:
        return ""
    lines = [
        _button(view, shown, f"{_picture(view)}<span>{text(entry(texts, view))}</span>") for view in made
    ]
    return f'<p class="lx-head">{text(texts("gallery"))}</p><ul class="lx-gallery">{"".join(lines)}</ul>'


def prompt_title(texts: Texts, view: JobView, length: int = 48) -> str:
    """Shorten the prompt of a job to a title."""
    words = " ".join(str(view.order.settings.prompt).split()) or texts("job.no_prompt")
    return words if len(words) <= length else words[: length - 1] + "…"


def entry(texts: Texts, view: JobView) -> str:
    """Name a result in the gallery."""
    request = view.made.record.get("request", {}) if view.made is not None else {}
    name = prompt_title(texts, view)
    return texts("gallery.entry", title=name, seed=request["seed"]) if request else name


def _link(label: str, name: str) -> str:
    """Build a link to the download of a file; ``name`` is escaped already."""
    return f'<a href="results/{name}?download" download>{text(label)}</a>'


def _button(view: JobView, shown: str | None, content: str) -> str:
    """Build a list entry that shows a job on a click; ``content`` is HTML."""
    now = ' aria-current="true"' if view.id == shown else ""
    return f'<li><button type="button" data-job="{text(view.id)}"{now}>{content}</button></li>'


def _picture(view: JobView) -> str:
    small = None if view.made is None else view.made.thumbnail
    if small is None:
        return ""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(small).decode()}">'


def _gb(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"


def _list(texts: Texts, lines: Iterable[Text]) -> str:
    shown = dict.fromkeys(texts.show(line) for line in lines)
    items = "".join(f"<li>{text(line)}</li>" for line in shown)
    return f'<ul class="lx-notes">{items}</ul>' if items else ""


def _working(texts: Texts, view: JobView, now: float) -> str:
    stage = view.stage
    percent = round(stage.fraction * 100)
    phase = texts.named("phase", stage.phase or "start")
    progress = phase
    if stage.total and stage.unit == "bytes":
        done, total = f"{stage.done / 1e9:.2f}", f"{stage.total / 1e9:.2f}"
        progress = texts("progress.bytes", phase=phase, done=done, total=total)
    elif stage.total:
        unit = texts.named("unit", stage.unit or "steps")
        progress = texts("progress.counted", phase=phase, done=stage.done, total=stage.total, unit=unit)
    left = stage.left(now)
    notes = []
    if left is not None and stage.done < stage.total:
        notes.append(texts("status.left", duration=texts.duration(left)))
    if view.cancelling:
        notes.append(texts("status.cancelling"))
    return (
        f'<div class="lx-progress"><div class="lx-said"><span>{text(progress)}</span>'
        f"<span>{text(' · '.join(notes))}</span></div>"
        f'<div class="lx-bar" role="progressbar" aria-label="{text(phase)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div></div>'
    )
