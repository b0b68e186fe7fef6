"""The objective of every transformer here, as the schedulers of the core expect it.

``x = (1 - sigma) x0 + sigma noise``; the network's timestep is ``1000 sigma``, and it predicts the velocity ``noise -
x0`` (see ``lightx2v_core/builtin/schedulers/grids.py``). Sigmas are drawn evenly and then shifted like those of the
schedule.

Shape legend: B batch, C latent channels, T h w latent frames, rows and columns, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TypeAlias

import torch
from attrs import frozen
from torch import Tensor

import networks
from latents import Latents
from lightx2v_wan21.api import NEGATIVE, NEGATIVE_I2V, Tokenizer
from loop import Settings, generator
from prompts import prompt
from sizes import SHIFT, TEXT_LENGTH

#: noisy latents, timesteps, the indices of the clips -> velocity
Velocity: TypeAlias = Callable[[Tensor, Tensor, "Batch"], Tensor]
#: probability of dropping the prompt, for guidance: replaced by an empty text or a default negative prompt of Wan
LEFT_OUT = 0.1


@frozen(kw_only=True)
class Batch:
    """The training data of one step."""

    clips: list[int]
    #: token ids and mask, ``[B, S]``
    ids: Tensor
    mask: Tensor
    #: latents ``[B, C, T, h, w]`` and noise of the same shape
    clean: Tensor
    noise: Tensor
    #: noise levels ``[B]``
    sigmas: Tensor


class Sampler:
    """Batches of latents and prompts; the same step gives the same batch."""

    def __init__(
        self,
        latents: Latents,
        settings: Settings,
        *,
        span: tuple[float, float] = (0.0, 1.0),
        shift: float = SHIFT,
        device: str = "cpu",
    ) -> None:
        """Store the data; noise levels are drawn from ``span``."""
        self._latents, self._settings, self._device = latents, settings, device
        self._span, self._shift = span, shift
        self._tokenizer = tokenizer()

    def __call__(self, step: int) -> Batch:
        random, settings = Random(f"flow {self._settings.seed} {step}"), self._settings
        clips = [random.randrange(len(self._latents.scenes)) for _ in range(settings.batch)]
        ids, mask = self._tokenizer.encode([self._text(random, index) for index in clips], TEXT_LENGTH)
        clean = self._latents.clips[clips].float()
        source = generator(settings, step, 2)
        # stratified: one level from every part of the span
        places = (torch.arange(len(clips)) + torch.rand(len(clips), generator=source)) / len(clips)
        low, high = (unshifted(sigma, self._shift) for sigma in self._span)
        places = low + (high - low) * places
        sigmas = self._shift * places / (1 + (self._shift - 1) * places)
        noise = torch.randn(clean.shape, generator=source)
        device = self._device
        return Batch(
            clips=clips,
            ids=ids.to(device),
            mask=mask.to(device),
            clean=clean.to(device),
            noise=noise.to(device),
            sigmas=sigmas.to(device),
        )

    def _text(self, random: Random, index: int) -> str:
        if random.random() < LEFT_OUT:
            return random.choice(("", NEGATIVE, NEGATIVE_I2V))
        return prompt(self._latents.scenes[index], random.randrange(10**9))


def flow_loss(velocity: Velocity, batch: Batch) -> Tensor:
    """Compute the mean squared error of the velocity."""
    level = batch.sigmas.view(-1, 1, 1, 1, 1)
    noisy = torch.lerp(batch.clean, batch.noise, level)
    predicted = velocity(noisy, 1000 * batch.sigmas, batch)
    return ((predicted - (batch.noise - batch.clean)) ** 2).mean()


def tokenizer() -> Tokenizer:
    """Load the tokenizer of the mini checkpoints as the runtime does."""
    with TemporaryDirectory() as folder:
        networks.tokenizer().save(str(Path(folder) / "tokenizer.json"))
        return Tokenizer(Path(folder))


def unshifted(sigma: float, shift: float) -> float:
    """Return the level that the shift maps to ``sigma``."""
    return sigma / (shift - (shift - 1) * sigma)
