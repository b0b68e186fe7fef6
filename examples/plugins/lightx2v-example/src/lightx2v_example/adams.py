"""A scheduler: the second-order Adams-Bashforth rule on the noise levels of flow matching.

With x = (1 - s) * data + s * noise the velocity v = noise - data is dx/ds, so a step adds the integral of v.
The rule extrapolates v from its last two values (Hairer, Norsett, Wanner: Solving Ordinary Differential Equations I,
III.5, for steps of unequal length); the first step is Euler's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Adams2:
    """A ``Scheduler``; serves one request."""

    def __init__(self, *, steps: int, shift: float, start: int = 0) -> None:
        levels = [1 - index / steps for index in range(steps)]
        shifted = [shift * level / (1 + (shift - 1) * level) for level in levels]
        self.sigmas: Sequence[float] = [*shifted[start:], 0.0]
        self.timesteps: Sequence[float] = [1000 * sigma for sigma in self.sigmas[:-1]]
        self._before: Tensor | None = None

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """The latents after step ``index``, in float32."""
        velocity = prediction.float()
        length = self.sigmas[index + 1] - self.sigmas[index]
        slope = velocity
        if self._before is not None:
            ratio = length / (self.sigmas[index] - self.sigmas[index - 1])
            slope = velocity + ratio / 2 * (velocity - self._before)
        self._before = velocity
        return latents.float() + length * slope
