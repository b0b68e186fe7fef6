"""Event listeners of a run: progress bars for a terminal, lines for a log, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightx2v_core.cli.show_start import start_text
from lightx2v_core.cli.terminal import cursor_stream, escaped, message, say, say_json
from lightx2v_core.events import (
    Emit,
    Event,
    JobDone,
    JobStarted,
    PhaseDone,
    PhaseStarted,
    PlanReady,
    Progress,
    Saved,
    StepDone,
    Warned,
)


@contextmanager
def progress_listener(*, as_json: bool, quiet: bool) -> Iterator[Emit]:
    """Provide the listener that displays events.

    Bars in a terminal, lines in a log, JSON for programs (``as_json``), or warnings only (``quiet``).
    """
    if as_json:
        yield _print_json
        return
    view: _Quiet = _Quiet() if quiet else _Bars() if sys.stderr.isatty() else _Lines()
    try:
        yield view
    finally:
        view.close()


def _print_json(event: Event) -> None:
    say_json(event.to_json())


class _Quiet:
    """Listener that prints warnings only. Errors are printed by ``main``."""

    def __call__(self, event: Event) -> None:
        """Print a warning."""
        if isinstance(event, Warned):
            say(f"warning: {event.message}", err=True)

    def close(self) -> None:
        """Do nothing: there is no open bar."""


class _Lines(_Quiet):
    """Listener that prints a line for each plan, step, phase, result and job."""

    def __call__(self, event: Event) -> None:
        """Print a line for the event."""
        super().__call__(event)
        if isinstance(event, PlanReady):
            say(start_text(event.plan), err=True)
        elif isinstance(event, StepDone):
            say(f"denoise {event.index + 1}/{event.count}, {event.seconds:.2f} s", err=True)
        elif isinstance(event, PhaseDone):
            say(f"{event.phase} done in {event.seconds:.1f} s", err=True)
        elif isinstance(event, Saved):
            say(saved(event), err=True)
        elif isinstance(event, JobStarted | JobDone):
            say(job(event), err=True)


class _Bars(_Quiet):
    """Listener that shows a bar for each phase: bytes while loading, steps while denoising, frames while decoding."""

    def __init__(self) -> None:
        """Initialize without a bar."""
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        """Update the bar, or print a line above it."""
        if isinstance(event, Warned):
            from tqdm import tqdm

            tqdm.write(message(f"warning: {event.message}"), file=cursor_stream())
        elif isinstance(event, PlanReady):
            say(start_text(event.plan), err=True)
        elif isinstance(event, PhaseStarted):
            self._open(event)
        elif isinstance(event, Progress):
            if event.phase == "download" and event.detail:
                self._bar.set_postfix_str(escaped(event.detail[-40:]), refresh=False)
            self._bar.update(event.done - self._bar.n)
        elif isinstance(event, StepDone):
            self._bar.update(1)
        elif isinstance(event, PhaseDone):
            self.close()
        elif isinstance(event, Saved):
            say(saved(event), err=True)
        elif isinstance(event, JobStarted | JobDone):
            self.close()
            say(job(event), err=True)

    def _open(self, event: PhaseStarted) -> None:
        from tqdm import tqdm

        in_bytes = event.unit == "bytes"
        self._bar = tqdm(
            total=event.total,
            desc=escaped(f"{event.phase:<8}"),
            unit="B" if in_bytes else event.unit.rstrip("s"),
            unit_scale=in_bytes,
            unit_divisor=1024,
            file=cursor_stream(),
            dynamic_ncols=True,
            # all steps are alike, so the mean over all of them is the best estimate
            smoothing=0 if event.phase == "denoise" else 0.3,
        )

    def close(self) -> None:
        """Close the bar, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def job(event: JobStarted | JobDone) -> str:
    """Format the state of a batch job as a line."""
    if isinstance(event, JobStarted):
        return f"job {event.index + 1} of {event.count} (line {event.line}): {event.output}"
    return f"line {event.line} {event.state}" + (f": {event.message}" if event.message else "")


def saved(event: Saved) -> str:
    """Format the saved result as a line."""
    record = f" (record: {event.record})" if event.record else ""
    return f"saved {event.path}, {event.frames} frames{record}"
