"""How far a job is: the events of a run, folded into one state."""

from __future__ import annotations

from attrs import evolve, frozen

from lightx2v_core.api import Event, PhaseDone, PhaseStarted, Progress, StepDone

#: phase -> what a user reads
PHASES = {
    "load": "Loading the model",
    "encode": "Reading the prompt",
    "denoise": "Making the video",
    "decode": "Turning it into frames",
}


@frozen(kw_only=True)
class Stage:
    """Where a job is: ``done`` of ``total`` units of a phase that began at ``since`` (seconds of a clock)."""

    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    since: float = 0.0
    #: mean seconds of the steps so far; 0 when there is none
    step_seconds: float = 0.0

    @property
    def fraction(self) -> float:
        """How much of the phase is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def label(self) -> str:
        """The phase in words."""
        return PHASES.get(self.phase, self.phase.capitalize() or "Starting")

    def left(self, now: float) -> float | None:
        """Seconds until the phase ends, by what it took so far; None when nothing is known yet."""
        if not self.done or not self.total:
            return None
        if self.step_seconds:
            return self.step_seconds * (self.total - self.done)
        return (now - self.since) / self.done * (self.total - self.done)


def advance(stage: Stage, event: Event, now: float) -> Stage:
    """The state after an event."""
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


def format_duration(seconds: float) -> str:
    """A time for people: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
