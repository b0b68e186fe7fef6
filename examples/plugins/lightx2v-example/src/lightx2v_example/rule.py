"""A scheduler: Adams-Bashforth methods on the noise levels of flow matching.

With x = (1 - s) * data + s * noise the velocity v = noise - data is dx/ds, so a step adds the integral of v. The method
integrates the polynomial through the last velocities (Hairer, Norsett, Wanner: Solving Ordinary Differential Equations
I, III.5, for steps of unequal length); the first steps use fewer of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from torch import Tensor


class Multistep:
    """A ``Scheduler`` for one request; it keeps the last velocities."""

    def __init__(self, *, steps: int, shift: float, start: int = 0, order: int = 2) -> None:
        levels = [1 - index / steps for index in range(steps)]
        shifted = [shift * level / (1 + (shift - 1) * level) for level in levels]
        self.sigmas: Sequence[float] = [*shifted[start:], 0.0]
        self.timesteps: Sequence[float] = [1000 * sigma for sigma in self.sigmas[:-1]]
        # computed once, so that a step is only a few tensor operations
        self._weights = [weights(self.sigmas, index, order) for index in range(len(self.timesteps))]
        self._velocities: deque[Tensor] = deque(maxlen=order)

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Compute the latents after step ``index``, in float32."""
        self._velocities.appendleft(prediction.float())
        moved = latents.float()
        for weight, velocity in zip(self._weights[index], self._velocities, strict=True):
            moved = moved + weight * velocity
        return moved


def weights(sigmas: Sequence[float], index: int, order: int) -> list[float]:
    """Compute the weights of the last velocities, newest first, in step ``index``.

    These are the integrals over the step of the Lagrange polynomials on their noise levels.
    """
    nodes = [sigmas[index - back] - sigmas[index] for back in range(min(order, index + 1))]
    length = sigmas[index + 1] - sigmas[index]
    integrals = []
    for node in nodes:
        polynomial = [1.0]  # coefficients, the constant first
        for other in nodes:
            if other != node:
                pairs = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
                polynomial = [(low - other * high) / (node - other) for low, high in pairs]
        integrals.append(sum(c * length ** (power + 1) / (power + 1) for power, c in enumerate(polynomial)))
    return integrals
