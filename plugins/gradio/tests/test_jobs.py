"""The queue: order, places, cancelling, sessions, failures; and how far a job is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightx2v_core.api import (
    Emit,
    Event,
    PhaseDone,
    PhaseStarted,
    Progress,
    RequestError,
    RunError,
    StepDone,
    Warned,
)
from lightx2v_gradio.jobs import JobResult, JobView, Queue, newest
from lightx2v_gradio.progress import Stage, advance
from lightx2v_gradio.texts import TEXTS

pytestmark = pytest.mark.load


class Work:
    """Steps that the test lets happen one by one."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.go = threading.Semaphore(0)

    def __call__(self, order: Any, emit: Emit, show: Callable[[bytes], None]) -> JobResult:
        self.started.append(order)
        if isinstance(order, Exception):
            raise order
        emit(Warned(message="mind the gap"))
        emit(PhaseStarted(phase="denoise", total=5, unit="steps"))
        for index in range(5):
            assert self.go.acquire(timeout=20)
            emit(StepDone(index=index, count=5, timestep=1.0, expert=0, seconds=0.1))
            show(b"png %d" % index)
        return JobResult(file=f"{order}.mp4", record_file=None, record={"of": order})


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue(work: Work) -> Iterator[Queue]:
    queue = Queue(work)
    yield queue
    for _ in range(100):
        work.go.release()
    queue.close(10)


def until(look: Callable[[], Any]) -> Any:
    """Wait for something to become true; what it is then."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if value := look():
            return value
        time.sleep(0.005)
    raise AssertionError("it never happened")


def seen(queue: Queue, job: str, session: str = "me") -> JobView:
    view = queue.view(session, job)
    assert view is not None
    return view


def test_one_after_the_other_with_places(queue: Queue, work: Work) -> None:
    first, second, third = (
        queue.submit(session, name) for session, name in (("me", "a"), ("you", "b"), ("me", "c"))
    )
    until(lambda: seen(queue, first).state == "working")
    assert seen(queue, second, "you").before == 1
    assert seen(queue, third).before == 2
    for _ in range(15):
        work.go.release()
    until(lambda: seen(queue, third).state == "done")
    assert work.started == ["a", "b", "c"]
    view = seen(queue, first)
    assert view.made is not None
    assert (view.made.file, view.warnings, view.preview_count) == ("a.mp4", ("mind the gap",), 5)
    assert view.preview == b"png 4"
    assert view.seconds > 0


def test_cancelling_ends_within_a_step(queue: Queue, work: Work) -> None:
    job, after = queue.submit("me", "a"), queue.submit("me", "b")
    work.go.release()
    until(lambda: seen(queue, job).stage.done == 1)
    assert queue.cancel("me", job)
    work.go.release()  # the step that is being made
    until(lambda: seen(queue, job).state == "cancelled")
    assert seen(queue, job).stage.done == 1
    assert seen(queue, job).made is None
    assert not queue.cancel("me", job)
    for _ in range(5):
        work.go.release()
    until(lambda: seen(queue, after).state == "done")


def test_what_waits_is_taken_out_at_once(queue: Queue, work: Work) -> None:
    first, second, third = (queue.submit("me", name) for name in "abc")
    assert queue.cancel("me", second)
    assert seen(queue, second).state == "cancelled"
    assert seen(queue, third).before == 1
    for _ in range(10):
        work.go.release()
    until(lambda: seen(queue, third).state == "done")
    assert work.started == ["a", "c"]
    assert seen(queue, first).state == "done"


def test_nobody_sees_or_cancels_what_is_not_theirs(queue: Queue) -> None:
    job = queue.submit("me", "a")
    assert queue.view("you", job) is None
    assert not queue.cancel("you", job)
    assert queue.views("you") == []
    assert queue.view("me", None) is None


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (
            RunError("out of memory on this card; use a smaller size"),
            "out of memory on this card; use a smaller size",
        ),
        (
            ValueError("oops"),
            "unexpected ValueError: oops; the terminal of lightx2v-core ui shows the traceback",
        ),
    ],
)
def test_a_failure_is_one_message_and_the_queue_goes_on(
    queue: Queue, work: Work, exc: Exception, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    job, after = queue.submit("me", exc), queue.submit("me", "b")
    until(lambda: seen(queue, job).ended)
    assert (seen(queue, job).state, TEXTS["en"].show(seen(queue, job).message)) == ("failed", message)
    for _ in range(5):
        work.go.release()
    until(lambda: seen(queue, after).state == "done")
    assert ("Traceback" in capfd.readouterr().err) == isinstance(exc, ValueError)


def test_too_many_are_refused(queue: Queue) -> None:
    for index in range(20):
        queue.submit("me", index)
    with pytest.raises(RequestError, match="20 videos of yours"):
        queue.submit("me", "one more")
    queue.submit("you", "another one's")


def test_closing_ends_the_job_at_work(work: Work) -> None:
    queue = Queue(work)
    job = queue.submit("me", "a")
    until(lambda: seen(queue, job).state == "working")
    work.go.release()
    queue.close(10)
    assert seen(queue, job).state == "cancelled"
    with pytest.raises(RequestError, match="page is closing"):
        queue.submit("me", "b")


def test_the_newest_job_is_the_one_at_work() -> None:
    assert newest([]) is None


def test_time_left_follows_from_the_steps() -> None:
    stage = Stage()
    events: list[Event] = [
        PhaseStarted(phase="denoise", total=10, unit="steps"),
        StepDone(index=0, count=10, timestep=1, expert=0, seconds=2.0),
        StepDone(index=1, count=10, timestep=1, expert=0, seconds=4.0),
    ]
    assert stage.left(0) is None
    for event in events:
        stage = advance(stage, event, now=100.0)
    assert (stage.done, stage.fraction, stage.left(500.0)) == (2, 0.2, 24.0)
    stage = advance(stage, PhaseDone(phase="denoise", seconds=30), 130)
    assert stage.fraction == 1


def test_time_left_follows_from_the_clock() -> None:
    stage = advance(Stage(), PhaseStarted(phase="decode", total=20, unit="frames"), now=10)
    assert stage.left(12) is None
    stage = advance(stage, Progress(phase="decode", done=5, total=20), now=15)
    assert stage.left(15) == 15
    assert TEXTS["en"].named("phase", stage.phase) == "Decoding the video"
    stage = advance(stage, Progress(phase="load", done=1, total=2), now=20)
    assert (stage.phase, stage.since) == ("load", 20)


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0.2, "0 s", "0 秒"),
        (59, "59 s", "59 秒"),
        (200, "3 min 20 s", "3 分 20 秒"),
        (7500, "2 h 5 min", "2 小时 5 分"),
    ],
)
def test_durations(seconds: float, english: str, chinese: str) -> None:
    assert (TEXTS["en"].duration(seconds), TEXTS["zh"].duration(seconds)) == (english, chinese)
