"""One generation request: plain, serializable data with every value resolved."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Request:
    """The parameters of one generation. Sizes are in pixels, ``fps`` in frames per second."""

    task: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    #: frames of the video
    frames: int
    fps: float
    #: denoising steps, >= 1
    steps: int
    #: flow shift of the noise levels, > 0
    shift: float
    #: guidance scales: one value, or one per expert with the high-noise expert first; 1: no guidance
    guide_scale: tuple[float, ...]
    #: name of the scheduler
    scheduler: str
    #: seed of the initial noise
    seed: int
    #: run both guidance passes as one batch of two (more memory, fewer launches)
    batched_guidance: bool = False

    def scale(self, expert: int) -> float:
        """Return the guidance scale of an expert; a single value applies to all of them."""
        return self.guide_scale[min(expert, len(self.guide_scale) - 1)]

    @property
    def guided(self) -> bool:
        """Return whether any expert needs the second, unconditional pass."""
        return any(scale != 1.0 for scale in self.guide_scale)


@frozen(kw_only=True)
class SchedulerContext:
    """The arguments that a scheduler is built for.

    With ``start`` > 0 another scheduler has already taken the first steps: the new one has the timesteps and noise
    levels of the remaining steps only, counts them from 0, and starts without a history.
    """

    #: denoising steps of the request, >= 1
    steps: int
    #: flow shift of the noise levels, > 0
    shift: float
    #: steps already taken by another scheduler
    start: int = 0
