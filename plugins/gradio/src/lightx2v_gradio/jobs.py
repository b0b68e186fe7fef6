"""The queue: one worker generates one video after the other; each session sees and cancels its own jobs."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import define, field, frozen

from lightx2v_core.api import Cancelled, Emit, Event, LightX2VError, Warned
from lightx2v_gradio.progress import Stage, advance
from lightx2v_gradio.texts import PageError, Text, message

State = Literal["waiting", "working", "done", "cancelled", "failed"]
#: final states
ENDED = ("done", "cancelled", "failed")
#: most waiting and working jobs of one session, and of all sessions
_MOST_OWN, _MOST = 20, 200
#: most finished jobs of a session that are remembered
_REMEMBERED = 100


@frozen(kw_only=True)
class JobResult:
    """The result of a job: names of files in the output folder, and the run record."""

    file: str
    record_file: str | None
    record: Mapping[str, Any]
    #: a small JPEG of the middle frame
    thumbnail: bytes | None = None


@frozen(kw_only=True)
class JobView:
    """A snapshot of a job."""

    id: str
    #: the request; opaque to the queue
    order: Any
    state: State
    #: number of jobs before it; 0 once it works or has ended
    before: int
    stage: Stage
    #: seconds of work so far
    seconds: float
    #: the latest preview as PNG, None before the first one; ``preview_count`` counts them
    preview: bytes | None
    preview_count: int
    cancelling: bool
    warnings: tuple[str, ...]
    #: the error of a failed job
    message: Text
    made: JobResult | None

    @property
    def ended(self) -> bool:
        """Return whether the job is in a final state."""
        return self.state in ENDED


#: carries out one job: takes the order, a listener of its events, and a function that shows previews (PNG)
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
    message: Text = ""
    made: JobResult | None = None


class Queue:
    """Jobs in order of arrival. ``close`` ends the worker."""

    def __init__(self, work: Work, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._work, self._clock = work, clock
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="lightx2v-ui-worker", daemon=True)
        self._worker.start()

    def submit(self, session: str, order: Any) -> str:
        """Append a job and return its id, which cannot be guessed. ``PageError`` for a full or closed queue."""
        with self._changed:
            if self._closed:
                raise PageError("error.closed")
            unfinished = [job for job in self._jobs.values() if job.state not in ENDED]
            own = sum(job.session == session for job in unfinished)
            if own >= _MOST_OWN or len(unfinished) >= _MOST:
                raise PageError("error.queue", own=own, all=len(unfinished))
            job = _Job(id=secrets.token_urlsafe(9), session=session, order=order)
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget(session)
            self._changed.notify_all()
            return job.id

    def view(self, session: str, job_id: str | None) -> JobView | None:
        """Return a job of a session; None for an unknown id or a job of another session."""
        with self._changed:
            job = self._own(session, job_id)
            return None if job is None else self._view(job)

    def views(self, session: str) -> list[JobView]:
        """Return the jobs of a session, oldest first."""
        with self._changed:
            return [self._view(job) for job in self._jobs.values() if job.session == session]

    def cancel(self, session: str, job_id: str | None) -> bool:
        """Remove a waiting job, or end a working one at its next event (one step away). False for any other job."""
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
        """End the current job and the worker, and wait for it up to ``seconds``."""
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
            state, failure, made = self._outcome(job)
            with self._changed:
                job.ended, job.message, job.made, job.state = self._clock(), failure, made, state

    def _outcome(self, job: _Job) -> tuple[State, Text, JobResult | None]:
        try:
            return "done", "", self._work(job.order, self._listener(job), self._shown(job))
        except Cancelled:
            return "cancelled", "", None
        except LightX2VError as exc:
            return "failed", exc.message if isinstance(exc, PageError) else str(exc), None
        except Exception as exc:  # a bug of ours or of a plugin must not end the page and the other jobs
            traceback.print_exc(file=sys.stderr)
            return "failed", message("error.unexpected", type=type(exc).__name__, reason=str(exc)), None

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
    """Return the job that a new tab shows: the working or first waiting one, else the last one; None without jobs."""
    unfinished = [view for view in views if not view.ended]
    return unfinished[0] if unfinished else (views[-1] if views else None)
