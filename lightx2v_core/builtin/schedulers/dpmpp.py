"""DPM-Solver++(2M) for flow matching (arXiv:2211.01095), and the multistep predictor it shares with UniPC.

With alpha = 1 - sigma, lambda = log(alpha / sigma) and h = lambda_t - lambda_s, the data-prediction solvers
move from sigma_s to sigma_t by

    x_t = sigma_t / sigma_s * x_s - alpha_t * expm1(-h) * (m + ...),    m = x_s - sigma_s * v = predicted x0.

For flow matching ``alpha_t * expm1(-h)`` is ``sigma_t / sigma_s - 1``: the infinite lambda at sigma 1 and sigma 0
cancels out, and a first-order step is Euler's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightx2v_core.builtin.schedulers.grids import check_turn, dpmpp_grid, log_snr, rest

if TYPE_CHECKING:
    from torch import Tensor

#: Factors of a linear combination: of the sample, then of the x0 predictions, newest first.
Weights = tuple[float, ...]


def predictor_weights(sigmas: Sequence[float], index: int, order: int) -> Weights:
    """Compute the weights of the step from ``sigmas[index]``: sample, newest x0 and, at order 2, the x0 before it.

    Order 2 replaces m by ``m + (m - m_before) * h / (2 * h_before)``. This is the midpoint form of
    DPM-Solver++(2M) and equally UniP-2 of UniPC with B(h) = expm1(-h).
    """
    ratio = sigmas[index + 1] / sigmas[index]
    if order == 1:
        return ratio, 1 - ratio
    before, here, there = (log_snr(sigma) for sigma in sigmas[index - 1 : index + 2])
    # lambda_before = -inf (the previous step started at sigma 1) makes the slope 0, its limit.
    slope = 0.5 * (there - here) / (here - before)
    return ratio, (1 - ratio) * (1 + slope), (ratio - 1) * slope


def blend(weights: Weights, sample: Tensor, *predictions: Tensor) -> Tensor:
    """Combine same-shaped tensors linearly into a new tensor; predictions without a weight are ignored."""
    total = sample * weights[0]
    for weight, prediction in zip(weights[1:], predictions, strict=False):
        total.add_(prediction, alpha=weight)
    return total


class FlowDPMSolverPP:
    """DPM-Solver++(2M) for flow matching: second-order multistep in its midpoint form.

    The first and the last step are first-order. `steps` >= 1 and `shift` > 0, else ValueError. Timesteps are
    integers from 1000 down; the first `start` steps are omitted. Keeps the history of one request.
    """

    timesteps: Sequence[float]
    sigmas: Sequence[float]

    def __init__(self, steps: int, shift: float, start: int = 0) -> None:
        self.timesteps, self.sigmas = rest(dpmpp_grid(steps, shift), start)
        steps -= start
        orders = (min(2, i + 1, steps - i) for i in range(steps))
        self._weights = [predictor_weights(self.sigmas, i, order) for i, order in enumerate(orders)]
        self._history: tuple[Tensor, ...] = ()
        self._next = 0

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents at ``sigmas[index + 1]``, a new tensor in the shape and dtype of `latents`.

        `prediction` is the velocity predicted for `latents`, same shape, any float dtype. Raises
        ValueError unless steps are taken in order from 0.
        """
        check_turn(self, self._next, index, len(self.timesteps))
        clean = torch.add(latents, prediction.to(latents.dtype), alpha=-self.sigmas[index])
        self._next += 1
        if self._next == len(self.timesteps):
            return clean
        latents = blend(self._weights[index], latents, clean, *self._history)
        self._history = (clean,)
        return latents
