"""The queue: one worker makes one video after the other, and everybody can see and cancel their own."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import define, field, frozen

from lightx2v_core.api import Cancelled, Emit, Event, LightX2VError, RequestError, Warned
from lightx2v_gradio.progress import Stage, advance

State = Literal["waiting", "working", "done", "cancelled", "failed"]
#: states that a job does not leave
ENDED = ("done", "cancelled", "failed")
#: jobs that one session may have waiting or working, and that all may
_MOST_OWN, _MOST = 20, 200
#: finished jobs of a session that are remembered
_REMEMBERED = 100


@frozen(kw_only=True)
class JobResult:
    """What a job made: names of files in the output folder, and the run record."""

    file: str
    record_file: str | None
    record: Mapping[str, Any]
    #: a small JPEG of its middle
    thumbnail: bytes | None = None


@frozen(kw_only=True)
class JobView:
    """A job as it is now."""

    id: str
    #: what was asked for; the queue does not look into it
    order: Any
    state: State
    #: jobs before it; 0 when it is at work or ended
    before: int
    stage: Stage
    #: seconds it has worked
    seconds: float
    #: a PNG of what it will look like, None when there is none yet; ``preview_count`` counts them
    preview: bytes | None
    preview_count: int
    cancelling: bool
    warnings: tuple[str, ...]
    #: why it failed, in one message
    message: str
    made: JobResult | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


#: makes one job: the order, the listener of its events, and who is shown previews (PNG)
Work = Callable[[Any, Emit, Callable[[bytes], None]], JobResult]


@define
class _Job:
    id: str
    session: str
    order: Any
    state: State = "waiting"
    stage: Stage = field(factory=Stage)
    started: float = 0.0
    ended: float = 0.0
    preview: bytes | None = None
    preview_count: int = 0
    cancelling: bool = False
    warnings: list[str] = field(factory=list)
    message: str = ""
    made: JobResult | None = None


class Queue:
    """Jobs in the order they came. ``close`` ends the worker."""

    def __init__(self, work: Work, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock = work, clock
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="lightx2v-ui-worker", daemon=True)
        self._worker.start()

    def submit(self, session: str, order: Any) -> str:
        """Put a job at the end; returns its id, which cannot be guessed. ``RequestError`` when too many wait."""
        with self._changed:
            if self._closed:
                raise RequestError("the page is being closed; start it again")
            unfinished = [job for job in self._jobs.values() if job.state not in ENDED]
            own = sum(job.session == session for job in unfinished)
            if own >= _MOST_OWN or len(unfinished) >= _MOST:
                raise RequestError(
                    f"{own} of your videos and {len(unfinished)} in all wait already; try again later"
                )
            job = _Job(id=secrets.token_urlsafe(9), session=session, order=order)
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget(session)
            self._changed.notify_all()
            return job.id

    def view(self, session: str, job_id: str | None) -> JobView | None:
        """A job of a session; None when it has none of that id."""
        with self._changed:
            job = self._own(session, job_id)
            return None if job is None else self._view(job)

    def views(self, session: str) -> list[JobView]:
        """The jobs of a session, oldest first."""
        with self._changed:
            return [self._view(job) for job in self._jobs.values() if job.session == session]

    def cancel(self, session: str, job_id: str | None) -> bool:
        """Take a job out, or end it at its next event, which is a step away. False when there is nothing to cancel."""
        with self._changed:
            job = self._own(session, job_id)
            if job is None or job.state in ENDED:
                return False
            job.cancelling = True
            if job.state == "waiting":
                self._waiting.remove(job)
                job.state = "cancelled"
            return True

    def close(self, seconds: float = 60.0) -> None:
        """End the job at work and the worker; waits for it."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancelling = True
            self._changed.notify_all()
        self._worker.join(seconds)

    def _own(self, session: str, job_id: str | None) -> _Job | None:
        job = self._jobs.get(job_id or "")
        return job if job is not None and job.session == session else None

    def _view(self, job: _Job) -> JobView:
        before = 0
        if job.state == "waiting":
            before = self._waiting.index(job) + any(other.state == "working" for other in self._jobs.values())
        end = job.ended or self._clock()
        return JobView(
            id=job.id,
            order=job.order,
            state=job.state,
            before=before,
            stage=job.stage,
            seconds=end - job.started if job.started else 0.0,
            preview=job.preview,
            preview_count=job.preview_count,
            cancelling=job.cancelling,
            warnings=tuple(job.warnings),
            message=job.message,
            made=job.made,
        )

    def _forget(self, session: str) -> None:
        ended = [job for job in self._jobs.values() if job.session == session and job.state in ENDED]
        for job in ended[: max(len(ended) - _REMEMBERED, 0)]:
            del self._jobs[job.id]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.pop(0)
                job.state, job.started = "working", self._clock()
            state, message, made = self._outcome(job)
            with self._changed:
                job.ended, job.message, job.made, job.state = self._clock(), message, made, state

    def _outcome(self, job: _Job) -> tuple[State, str, JobResult | None]:
        try:
            return "done", "", self._work(job.order, self._listener(job), self._shown(job))
        except Cancelled:
            return "cancelled", "", None
        except LightX2VError as exc:
            return "failed", str(exc), None
        except Exception as exc:  # a mistake of ours or of a plugin: the page and the other jobs go on
            traceback.print_exc(file=sys.stderr)
            text = f"unexpected {type(exc).__name__}: {exc}; the terminal of lightx2v-core ui shows where"
            return "failed", text, None

    def _listener(self, job: _Job) -> Emit:
        def listen(event: Event) -> None:
            with self._changed:
                if job.cancelling:
                    raise Cancelled("cancelled on the page")
                if isinstance(event, Warned):
                    job.warnings.append(event.message)
                job.stage = advance(job.stage, event, self._clock())

        return listen

    def _shown(self, job: _Job) -> Callable[[bytes], None]:
        def show(png: bytes) -> None:
            with self._changed:
                job.preview, job.preview_count = png, job.preview_count + 1

        return show


def newest(views: Sequence[JobView]) -> JobView | None:
    """The job that a page without one of its own shows: the one at work or first in line, else the last one."""
    unfinished = [view for view in views if not view.ended]
    return unfinished[0] if unfinished else (views[-1] if views else None)
