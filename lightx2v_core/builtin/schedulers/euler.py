"""Euler's method for flow matching: one straight step along the velocity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from lightx2v_core.builtin.schedulers.grids import check_turn, euler_grid, rest, unipc_grid

if TYPE_CHECKING:
    from torch import Tensor

_GRIDS = {"linear": euler_grid, "unipc": unipc_grid}


class FlowEuler:
    """First-order flow-matching solver: ``x <- x + (sigma_next - sigma) * v``.

    With ``x_sigma = (1 - sigma) * x0 + sigma * noise`` the velocity is ``dx / dsigma = noise - x0``, so the
    update is exact wherever the predicted velocity stays constant.

    `steps` >= 1 and `shift` > 0, else ValueError. `grid` is "linear" (1 down to 0, fractional timesteps, as
    LightX2V's Euler scheduler) or "unipc" (the sigmas and the integer timesteps of `FlowUniPC`). The first `start`
    steps are omitted.
    """

    timesteps: Sequence[float]
    sigmas: Sequence[float]

    def __init__(
        self, steps: int, shift: float, grid: Literal["linear", "unipc"] = "linear", *, start: int = 0
    ) -> None:
        if grid not in _GRIDS:
            raise ValueError(f"FlowEuler: unknown grid {grid!r}, choose from {sorted(_GRIDS)}")
        self.timesteps, self.sigmas = rest(_GRIDS[grid](steps, shift), start)
        self._next = 0

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents at ``sigmas[index + 1]``, a new tensor in the shape and dtype of `latents`.

        `prediction` is the velocity predicted for `latents`, same shape, any float dtype. Raises
        ValueError unless steps are taken in order from 0.
        """
        check_turn(self, self._next, index, len(self.timesteps))
        stride = self.sigmas[index + 1] - self.sigmas[index]
        latents = torch.add(latents, prediction.to(latents.dtype), alpha=stride)
        self._next += 1
        return latents
