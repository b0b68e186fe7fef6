"""The progress of a run, as a stream of typed events. The bar, ``--json`` and every other view are listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    from torch import Tensor

#: marks a field that is passed to listeners in this process and left out of JSON
_HERE_ONLY = "here only"


@frozen(kw_only=True)
class Event:
    """Base class of events; ``kind`` names the event in JSON."""

    kind: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain data for ``json.dumps``."""
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
    """Progress of a phase: ``done`` of ``total``; ``detail`` names the part that was just finished."""

    kind: ClassVar[str] = "progress"
    phase: str
    done: int
    total: int
    detail: str = ""


@frozen(kw_only=True)
class StepDone(Event):
    """A denoising step ended after ``seconds``.

    ``clean`` returns the clean latents [C, T, h, w] that the step predicts, for a preview: float32 on the device of
    the run, without latent frames of reference images. It may be called until the listener returns; nothing is
    computed unless it is called.
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
    """A warning; the run continues."""

    kind: ClassVar[str] = "warning"
    message: str


@frozen(kw_only=True)
class Saved(Event):
    """A result was written to ``path``; ``record`` is the path of its run record, if one was written."""

    kind: ClassVar[str] = "saved"
    path: str
    record: str | None
    frames: int


@frozen(kw_only=True)
class JobStarted(Event):
    """Job ``index`` of ``count`` starts; ``line`` is its line in the prompt file."""

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
    """The run, or another command, ended without a result; ``exit_status`` is that of its process."""

    kind: ClassVar[str] = "error"
    message: str
    exit_status: int


#: listener of a run. An exception raised by the listener, such as ``Cancelled``, ends the run without partial output.
#: Events are frequent in every phase: each hundredth of a load, each prompt, step and chunk.
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Ignore the event: the default listener."""
