"""Noise levels and timesteps of the flow-matching schedulers, in plain Python without torch.

Flow matching mixes linearly, ``x_sigma = (1 - sigma) * x0 + sigma * noise`` with sigma in [0, 1], and the
network predicts the velocity ``v = noise - x0``. A grid of ``steps`` steps has ``steps`` timesteps (the argument of
the network, ``1000 * sigma``) and ``steps + 1`` sigmas, strictly decreasing and ending in exactly 0.

Everything is float64 and keeps the order of operations of the reference implementations: their integer
timesteps come from truncation, where the last bit of a product decides between 874 and 875.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

TRAIN_TIMESTEPS = 1000

#: Top of the UniPC grid: 0.999 rounded to float32, because the reference keeps its training grid in float32.
UNIPC_SIGMA_MAX = 0.9990000128746033


class Grid(NamedTuple):
    """The grid of a scheduler: one timestep per step, and one sigma more than steps."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]


def shifted(sigma: float, shift: float) -> float:
    """Move `sigma` towards the noisy end: ``shift * sigma / (1 + (shift - 1) * sigma)``.

    0 and 1 are fixed points (1 up to rounding); shift 1 is the identity, smaller shifts move towards the clean end.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def training_levels(denoising_steps: Sequence[float]) -> list[int]:
    """Convert timesteps to training levels, 1..1000.

    Raises ValueError unless there is at least one, all are above 0 and at most 1000, and each level is below the
    previous one.
    """
    steps = list(denoising_steps)
    if not steps or not all(0 < t <= TRAIN_TIMESTEPS for t in steps):
        raise ValueError(f"denoising steps must be from {TRAIN_TIMESTEPS} down to 1, got {steps}")
    levels = [math.ceil(t) for t in steps]  # TRAIN_TIMESTEPS - int(TRAIN_TIMESTEPS - t)
    for (before, here), (level, lower) in zip(pairwise(steps), pairwise(levels), strict=True):
        if lower >= level:
            same = f": both are training level {level}" if here < before else ""
            raise ValueError(f"denoising steps must be descending, got {before:g} and then {here:g}{same}")
    return levels


def unipc_grid(steps: int, shift: float) -> Grid:
    """Return the grid of Wan's FlowUniPC: 0.999 down to 0, then shifted; timesteps are truncated to integers.

    Truncation may repeat a timestep (100 steps with shift 16 start 999, 999), so steps are identified by
    their index, never by their timestep.

    Raises ValueError for `steps` < 1, `shift` <= 0, or a shift so extreme that neighbouring sigmas coincide.
    """
    _check(steps, shift)
    sigmas = [shifted(sigma, shift) for sigma in _descending(UNIPC_SIGMA_MAX, steps)]
    return _grid([int(sigma * TRAIN_TIMESTEPS) for sigma in sigmas], sigmas, shift)


def dpmpp_grid(steps: int, shift: float) -> Grid:
    """Return the grid of Wan's DPM-Solver++: 1 down to 0, then shifted; timesteps are truncated to integers.

    Raises ValueError as `unipc_grid` does.
    """
    sigmas = _from_one(steps, shift)
    return _grid([int(sigma * TRAIN_TIMESTEPS) for sigma in sigmas], sigmas, shift)


def euler_grid(steps: int, shift: float) -> Grid:
    """Return the grid of LightX2V's Euler scheduler: 1 down to 0, then shifted; timesteps keep their fraction.

    Raises ValueError as `unipc_grid` does.
    """
    sigmas = _from_one(steps, shift)
    return _grid([sigma * TRAIN_TIMESTEPS for sigma in sigmas], sigmas, shift)


def rest(grid: Grid, start: int) -> Grid:
    """Return the grid from step `start` on. Raises ValueError unless that leaves at least one step."""
    if not 0 <= start < len(grid.timesteps):
        raise ValueError(f"start must be from 0 to {len(grid.timesteps) - 1}, got {start!r}")
    return Grid(grid.timesteps[start:], grid.sigmas[start:])


def log_snr(sigma: float) -> float:
    """Compute half the log signal-to-noise ratio, ``log(1 - sigma) - log(sigma)``: -inf at 1, +inf at 0."""
    if sigma == 0:
        return math.inf
    return math.log(1 - sigma) - math.log(sigma) if sigma < 1 else -math.inf


def check_turn(scheduler: object, expected: int, index: int, steps: int) -> None:
    """Raise ValueError unless `index` is the next step."""
    if index == expected < steps:
        return
    turn = f"expected index {expected}" if expected < steps else f"all {steps} steps are done"
    name = type(scheduler).__name__
    raise ValueError(f"{name}.step: {turn}, got index {index}; use a new scheduler for every request")


def _check(steps: int, shift: float) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be a positive number, got {shift!r}")


def _descending(start: float, steps: int) -> list[float]:
    """Compute ``linspace(start, 0, steps + 1)`` without its last point, with the rounding of numpy."""
    stride = -start / steps
    return [i * stride + start for i in range(steps)]


def _from_one(steps: int, shift: float) -> list[float]:
    _check(steps, shift)
    # Rounding in `shifted` can miss 1 by one bit, while the solvers take a different limit at exactly 1.
    return [1.0, *(shifted(sigma, shift) for sigma in _descending(1.0, steps)[1:])]


def _grid(timesteps: list[float] | list[int], sigmas: list[float], shift: float) -> Grid:
    grid = Grid(tuple(timesteps), (*sigmas, 0.0))
    if any(later >= earlier for earlier, later in pairwise(grid.sigmas)):
        raise ValueError(f"shift {shift!r} is too extreme for {len(sigmas)} steps: sigmas coincide")
    return grid
