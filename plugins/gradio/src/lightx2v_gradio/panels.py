"""The parts of the page that are read and not filled in, as HTML. Everything that comes from elsewhere is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from lightx2v_core.api import Plan, plan_text
from lightx2v_gradio.jobs import JobView
from lightx2v_gradio.options import FolderOptions
from lightx2v_gradio.progress import format_duration

_STATES = {
    "waiting": "waiting",
    "working": "at work",
    "done": "done",
    "cancelled": "cancelled",
    "failed": "failed",
}
#: besides what HTML means something by, what the templates of the page's library do
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def text(value: Any) -> str:
    """Text that means nothing to a browser or a template."""
    return html.escape(str(value), quote=True).translate(_TEMPLATE)


def model(options: FolderOptions) -> str:
    """What the folder is."""
    plan = options.plan
    return (
        f'<p class="lx-model"><strong>{text(plan.variant)}</strong> · {text(plan.summary)}<br>'
        f'<span class="lx-dim">{text(options.source.folder)} · {text(plan.device.name)} · {text(plan.dtype)}</span></p>'
    )


def problem(message: str) -> str:
    """What is wrong, in one message; nothing when nothing is."""
    if not message:
        return ""
    lines = "<br>".join(text(line.strip()) for line in message.splitlines() if line.strip())
    return f'<div class="lx-problem" role="alert">{lines}</div>'


def forecast(plan: Plan) -> str:
    """What the plan takes, and all of it for those who want to know."""
    memory, request = plan.memory, plan.request
    seconds = request.frames / request.fps
    facts = [
        f"{request.width} × {request.height}, {request.frames} frames ({seconds:.1f} s)",
        f"{request.steps} steps of {request.scheduler}",
        _memory("device memory", memory.device_peak, memory.device_limit or memory.device_total)
        if plan.device.kind != "cpu"
        else _memory("memory", memory.host_peak, memory.host_limit or memory.device_total),
    ]
    notes = "".join(f"<li>{text(line)}</li>" for line in (*memory.details, *plan.warnings))
    return (
        f'<p class="lx-forecast"><strong>Plan:</strong> {text(" · ".join(facts))}</p>'
        + (f'<ul class="lx-notes">{notes}</ul>' if notes else "")
        + f'<details class="lx-plan"><summary>The whole plan</summary><pre>{text(plan_text(plan))}</pre></details>'
    )


def loras(options: FolderOptions, out: Sequence[str]) -> str:
    """What there is to say of the LoRA files besides them; ``out``: what the form has no room for."""
    if not options.loras:
        return (
            '<p class="lx-dim">There is none in the model\'s folder that has an effect. Start the page with '
            "--lora FILE-OR-FOLDER to offer more.</p>"
        )
    return _list(line for line in out if "LoRA" in line)


def absent(options: FolderOptions, out: Sequence[str]) -> str:
    """What cannot be chosen here, and how to get what is not installed; ``out``: what the form has no room for."""
    parts = []
    if out:
        parts.append("<p>There is no room on this page for:</p>" + _list(out))
    if options.missing:
        parts.append("<p>More can be installed:</p>" + _list(options.missing))
    if options.unusable:
        parts.append("<p>Not possible with this folder on this machine:</p>" + _list(options.unusable))
    return "".join(parts) or "<p>Everything that there is can be used here.</p>"


def status(view: JobView | None, now: float) -> str:
    """Where a job is."""
    if view is None:
        return '<p class="lx-dim">Nothing has been asked for yet. Write a prompt, then press Generate.</p>'
    if view.state == "waiting":
        return f'<p role="status" class="lx-state">Waiting: {_before(view.before)}</p>'
    if view.state == "working":
        return _working(view, now)
    if view.state == "failed":
        return problem(view.message)
    if view.state == "cancelled":
        return '<p role="status" class="lx-state">Cancelled. Nothing was left behind.</p>'
    done = f"Done in {format_duration(view.seconds)}."
    return f'<p role="status" class="lx-state">{done}</p>' + _list(view.warnings)


def preview(view: JobView | None) -> str:
    """The last preview of a job that is at work."""
    if view is None or view.preview is None or view.state != "working":
        return ""
    data = base64.b64encode(view.preview).decode()
    return (
        '<figure class="lx-preview"><img alt="Preview: a rough guess of the middle of the video" '
        f'src="data:image/png;base64,{data}"><figcaption>rough preview</figcaption></figure>'
    )


def result(view: JobView | None) -> str:
    """A finished video or image, and where to get it."""
    if view is None or view.made is None:
        return ""
    name = text(view.made.file)
    request = view.made.record.get("request", {})
    shown = (
        f'<img class="lx-result" alt="The result" src="results/{name}">'
        if view.made.file.endswith(".png")
        else f'<video class="lx-result" controls loop autoplay muted playsinline src="results/{name}"></video>'
    )
    links = [f'<a href="results/{name}?download" download>Download the {_kind(view.made.file)}</a>']
    if view.made.record_file:
        links.append(
            f'<a href="results/{text(view.made.record_file)}?download" download>Download its run record</a>'
        )
    facts = ""
    if request:
        facts = (
            f"{request['width']} × {request['height']}, {request['frames']} frames, {request['steps']} steps, "
            f"seed {request['seed']}"
        )
    return f'{shown}<p class="lx-links">{" · ".join(links)}<br><span class="lx-dim">{text(facts)}</span></p>'


def jobs(views: Sequence[JobView], shown: str | None) -> str:
    """The session's jobs that have not ended; pressing one shows it."""
    waiting = [view for view in views if not view.ended]
    if not waiting or (len(waiting) == 1 and waiting[0].id == shown):
        return ""
    lines = [
        _button(view, shown, f"{text(title(view))}: {_STATES[view.state]}{_queue_position(view)}")
        for view in waiting
    ]
    return f'<p class="lx-head">Your queue</p><ol class="lx-queue">{"".join(lines)}</ol>'


def gallery(made: Sequence[JobView], shown: str | None) -> str:
    """What the session made, with pictures; pressing one shows it."""
    if not made:
        return ""
    lines = [_button(view, shown, f"{_picture(view)}<span>{text(entry(view))}</span>") for view in made]
    return f'<p class="lx-head">Results of this session</p><ul class="lx-gallery">{"".join(lines)}</ul>'


def title(view: JobView, length: int = 48) -> str:
    """A job in a few words: its prompt."""
    words = " ".join(str(view.order.settings.prompt).split()) or "no prompt"
    return words if len(words) <= length else words[: length - 1] + "…"


def entry(view: JobView) -> str:
    """A result in the list of results."""
    request = view.made.record.get("request", {}) if view.made is not None else {}
    seed = f" · seed {request['seed']}" if request else ""
    return f"{title(view)}{seed}"


def _button(view: JobView, shown: str | None, said: str) -> str:
    """A job that can be pressed; ``said`` is HTML."""
    now = ' aria-current="true"' if view.id == shown else ""
    return f'<li><button type="button" data-job="{text(view.id)}"{now}>{said}</button></li>'


def _picture(view: JobView) -> str:
    small = None if view.made is None else view.made.thumbnail
    if small is None:
        return ""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(small).decode()}">'


def _memory(what: str, peak: int, total: int | None) -> str:
    return f"{what} about {_gb(peak)}" + (f" of {_gb(total)}" if total else "")


def _gb(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="lx-notes">{items}</ul>' if items else ""


def _kind(name: str) -> str:
    return "image" if name.endswith(".png") else "video"


def _before(count: int) -> str:
    if count == 0:
        return "yours is next"
    return "one video is made before yours" if count == 1 else f"{count} videos are made before yours"


def _queue_position(view: JobView) -> str:
    return f", {view.before} before it" if view.state == "waiting" and view.before else ""


def _working(view: JobView, now: float) -> str:
    stage = view.stage
    percent = round(stage.fraction * 100)
    counted = ""
    if stage.total and stage.unit != "bytes":
        counted = f", {stage.done} of {stage.total} {stage.unit or 'steps'}"
    elif stage.total:
        counted = f", {stage.done / 1e9:.2f} of {stage.total / 1e9:.2f} GB"
    left = stage.left(now)
    time = f"about {format_duration(left)} left" if left is not None and stage.done < stage.total else ""
    cancelling = " · being cancelled" if view.cancelling else ""
    said = f"{stage.label}{counted}"
    return (
        f'<div class="lx-progress"><div class="lx-said"><span>{text(said)}</span>'
        f"<span>{text(time)}{cancelling}</span></div>"
        f'<div class="lx-bar" role="progressbar" aria-label="{text(stage.label)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div></div>'
    )
