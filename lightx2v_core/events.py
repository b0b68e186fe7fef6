"""The progress of a run, as a stream of typed events. The bar, ``--json`` and every other view are listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    from torch import Tensor

#: marks a field that listeners in this process get and JSON does not
_HERE_ONLY = "here only"


@frozen(kw_only=True)
class Event:
    """Something that happened; ``kind`` names it in JSON."""

    kind: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.kind,
            **asdict(self, filter=lambda attribute, _value: not attribute.metadata.get(_HERE_ONLY)),
        }


@frozen(kw_only=True)
class PlanReady(Event):
    """The plan of the run, as JSON data."""

    kind: ClassVar[str] = "plan"
    plan: dict[str, Any]


@frozen(kw_only=True)
class PhaseStarted(Event):
    """A phase begins: ``load``, ``encode``, ``denoise`` or ``decode``; ``total`` is counted in ``unit``."""

    kind: ClassVar[str] = "phase"
    phase: str
    total: int
    unit: str


@frozen(kw_only=True)
class Progress(Event):
    """``done`` of the phase's total; ``detail`` says what was just finished."""

    kind: ClassVar[str] = "progress"
    phase: str
    done: int
    total: int
    detail: str = ""


@frozen(kw_only=True)
class StepDone(Event):
    """A denoising step ended; ``seconds`` is what it took.

    ``clean`` gives the clean latents [C, T, h, w] that the step predicts, float32 on the device of the run, for a
    preview: those of the video, without latent frames of reference images. It can be called until the listener
    returns, and costs nothing when it is not.
    """

    kind: ClassVar[str] = "step"
    index: int
    count: int
    timestep: float
    expert: int
    seconds: float
    clean: Callable[[], Tensor] | None = field(
        default=None, eq=False, repr=False, metadata={_HERE_ONLY: True}
    )


@frozen(kw_only=True)
class PhaseDone(Event):
    """A phase ended after ``seconds``."""

    kind: ClassVar[str] = "phase_done"
    phase: str
    seconds: float


@frozen(kw_only=True)
class Warned(Event):
    """Something the user should know and that does not stop the run."""

    kind: ClassVar[str] = "warning"
    message: str


@frozen(kw_only=True)
class Saved(Event):
    """A result lies under ``path``; ``record`` is the run record beside it, if one was written."""

    kind: ClassVar[str] = "saved"
    path: str
    record: str | None
    frames: int


@frozen(kw_only=True)
class JobStarted(Event):
    """Job ``index`` of ``count`` begins; ``line`` is where its file says so."""

    kind: ClassVar[str] = "job"
    index: int
    count: int
    line: int
    output: str


@frozen(kw_only=True)
class JobDone(Event):
    """A job ended: ``state`` is ``done``, ``done before``, ``planned`` or ``failed``."""

    kind: ClassVar[str] = "job_done"
    index: int
    line: int
    state: str
    message: str


@frozen(kw_only=True)
class Failed(Event):
    """The run, or another command, ended without a result; ``exit_status`` is what its process ends with."""

    kind: ClassVar[str] = "error"
    message: str
    exit_status: int


#: what a run tells its listener. An exception of the listener ends the run with nothing left behind; ``Cancelled`` is
#: there for it. Every phase tells something often enough: each hundredth of a load, each prompt, step and chunk.
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener of a run nobody watches."""
