"""Progress of a job: the events of a run, folded into one state."""

from __future__ import annotations

from attrs import evolve, frozen

from lightx2v_core.api import Event, PhaseDone, PhaseStarted, Progress, StepDone


@frozen(kw_only=True)
class Stage:
    """Progress of a phase: ``done`` of ``total`` units since ``since`` (seconds of a clock)."""

    #: empty before the first one
    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    since: float = 0.0
    #: mean seconds of the steps so far; 0 before the first one
    step_seconds: float = 0.0

    @property
    def fraction(self) -> float:
        """Return the completed part of the phase, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def left(self, now: float) -> float | None:
        """Estimate the seconds until the phase ends from its pace so far; None before the first unit."""
        if not self.done or not self.total:
            return None
        if self.step_seconds:
            return self.step_seconds * (self.total - self.done)
        return (now - self.since) / self.done * (self.total - self.done)


def advance(stage: Stage, event: Event, now: float) -> Stage:
    """Return the state after an event."""
    if isinstance(event, PhaseStarted):
        return Stage(phase=event.phase, total=event.total, unit=event.unit, since=now)
    if isinstance(event, Progress):
        same = event.phase == stage.phase
        start = stage if same else Stage(phase=event.phase, since=now)
        return evolve(start, done=event.done, total=event.total)
    if isinstance(event, StepDone):
        done = event.index + 1
        mean = (stage.step_seconds * stage.done + event.seconds) / (stage.done + 1)
        return evolve(stage, done=done, total=event.count, step_seconds=mean)
    if isinstance(event, PhaseDone) and event.phase == stage.phase:
        return evolve(stage, done=stage.total)
    return stage
