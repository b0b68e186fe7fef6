"""UniPC for flow matching (arXiv:2302.04867): order 2, data prediction, B(h) = expm1(-h) (variant bh2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightx2v_core.builtin.schedulers.dpmpp import Weights, blend, predictor_weights
from lightx2v_core.builtin.schedulers.grids import check_turn, log_snr, rest, unipc_grid

if TYPE_CHECKING:
    from torch import Tensor


def corrector_weights(sigmas: Sequence[float], index: int, order: int) -> Weights:
    """Compute the weights of the corrected sample at ``sigmas[index]``, index >= 1, from the sample one step earlier.

    In order: that earlier sample, the x0 predicted here, one step ago and (order 2) two steps ago. `order` is
    the order of the prediction being corrected. UniC adds to the first-order step
    ``-alpha_t * B(h) * (rho_0 * (m_2 - m_1) / r + rho_1 * (m_t - m_1))`` with r = (lambda_2 - lambda_1) / h.
    """
    ratio = sigmas[index] / sigmas[index - 1]
    gain = 1 - ratio  # -alpha_t * B(h), see dpmpp
    if order == 1:
        return ratio, gain * 0.5, gain * 0.5
    older, previous, here = (log_snr(sigma) for sigma in sigmas[index - 2 : index + 1])
    h = here - previous
    r = (older - previous) / h
    # rho solves [[1, 1], [r, 1]] @ rho = b with b_k = k! * -h * phi_(k+1)(-h) / B(h).
    h_phi_2 = math.expm1(-h) / -h - 1
    h_phi_3 = h_phi_2 / -h - 0.5
    b_1, b_2 = h_phi_2 / math.expm1(-h), 2 * h_phi_3 / math.expm1(-h)
    rho_0 = (b_1 - b_2) / (1 - r)
    rho_1 = b_1 - rho_0
    return ratio, gain * rho_1, gain * (1 - rho_0 / r - rho_1), gain * rho_0 / r


class FlowUniPC:
    """UniPC for flow matching: each step first corrects the sample it was given, then predicts the next one.

    The correction reuses the network call of the step, so it costs no further call. The first and the last
    prediction are first-order. `steps` >= 1 and `shift` > 0, else ValueError. Timesteps are integers from 999
    down; the first `start` steps are omitted. Keeps the history of one request.
    """

    timesteps: Sequence[float]
    sigmas: Sequence[float]

    def __init__(self, steps: int, shift: float, start: int = 0) -> None:
        self.timesteps, self.sigmas = rest(unipc_grid(steps, shift), start)
        steps -= start
        orders = [min(2, i + 1, steps - i) for i in range(steps)]
        self._predictor = [predictor_weights(self.sigmas, i, order) for i, order in enumerate(orders)]
        corrector = (corrector_weights(self.sigmas, i, order) for i, order in enumerate(orders[:-1], start=1))
        # The first step corrects nothing: weight 1 copies the sample, as the caller may reuse its noise buffer.
        self._corrector: list[Weights] = [(1.0,), *corrector]
        self._sample: Tensor | None = None
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
            return clean  # sigma 0: the prediction of x0 itself, independent of the corrected sample
        history = (clean, *self._history)
        start = latents if self._sample is None else self._sample
        self._sample = blend(self._corrector[index], start, *history)
        self._history = history[:2]
        return blend(self._predictor[index], self._sample, *history)
