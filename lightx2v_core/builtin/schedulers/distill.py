"""The scheduler of step-distilled models: a few fixed timesteps with one Euler step between each.

Source: LightX2V's step-distill scheduler. The training grid is ``linspace(1, 0, 1001)`` without its end, shifted; the
timestep list indexes it at ``1000 - t``, truncated (937.5 means level 938), and the network gets the fractional
timestep of the shifted level. The update ``x0 = x - sigma v; x = x0 + sigma_next v`` is Euler's: no noise is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightx2v_core.builtin.schedulers.grids import (
    TRAIN_TIMESTEPS,
    Grid,
    check_turn,
    rest,
    shifted,
    training_levels,
)

if TYPE_CHECKING:
    from torch import Tensor


class StepDistill:
    """Steps through ``denoising_steps`` (see ``training_levels``), except the first ``start`` of them.

    ``shift`` is the flow shift, > 0. Raises ValueError for other values.
    """

    timesteps: Sequence[float]
    sigmas: Sequence[float]

    def __init__(self, denoising_steps: Sequence[float], shift: float, start: int = 0) -> None:
        steps = training_levels(denoising_steps)
        if not shift > 0:
            raise ValueError(f"StepDistill: shift must be above 0, got {shift}")
        levels = [shifted(t / TRAIN_TIMESTEPS, shift) for t in steps]
        whole = Grid(tuple(level * TRAIN_TIMESTEPS for level in levels), (*levels, 0.0))
        self.timesteps, self.sigmas = rest(whole, start)
        self._next = 0

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents at ``sigmas[index + 1]``. Raises ValueError unless steps are taken in order from 0."""
        check_turn(self, self._next, index, len(self.timesteps))
        stride = self.sigmas[index + 1] - self.sigmas[index]
        self._next += 1
        return torch.add(latents, prediction.to(latents.dtype), alpha=stride)
