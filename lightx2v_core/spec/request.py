"""One generation request: plain, serializable data with every value resolved."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Request:
    """What to generate. Sizes are in pixels, ``fps`` in frames a second."""

    task: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    shift: float
    #: one value, or one for each expert with the high-noise expert first
    guide_scale: tuple[float, ...]
    scheduler: str
    seed: int
    #: run the two guidance passes as one batch of two (more memory, fewer launches)
    batched_guidance: bool = False

    def scale(self, expert: int) -> float:
        """Return the guidance scale of an expert; a single value serves all of them."""
        return self.guide_scale[min(expert, len(self.guide_scale) - 1)]

    @property
    def guided(self) -> bool:
        """Whether any expert needs the second, unconditional pass."""
        return any(scale != 1.0 for scale in self.guide_scale)


@frozen(kw_only=True)
class SchedulerContext:
    """What a scheduler is built for: ``steps`` >= 1 and the flow ``shift`` > 0.

    ``start`` steps of them were already made by another scheduler: what is built has the timesteps and noise levels
    of the others alone, counts its own steps from 0, and begins without a history.
    """

    steps: int
    shift: float
    start: int = 0
