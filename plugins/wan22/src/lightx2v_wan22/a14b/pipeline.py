"""The A14B pipeline: two networks take turns, one for high noise levels and one for low.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, ModelParts, Request, Step
from lightx2v_wan21.api import FirstAndLast, PromptEncoder, Rope, VaeEncoder
from lightx2v_wan22.a14b.variants import EXPERTS, IMAGE_BOUNDARY, LATENT_CHANNELS, STRIDE, TEXT_BOUNDARY
from lightx2v_wan22.options import A14bOptions
from lightx2v_wan22.parts import (
    Codec,
    Transformer,
    encoded_prompts,
    latent_shape,
    load_prompts,
    load_transformer,
    load_vae21,
    stacked,
)


def build(options: A14bOptions, parts: ModelParts) -> TwoExperts:
    """Build the networks on the meta device and have them filled."""
    prompts = load_prompts(parts, parts.architecture["dit"]["text_len"])
    experts = [load_transformer(parts, name) for name in EXPERTS]
    codec = load_vae21(parts, options)
    images = FirstAndLast(cast(VaeEncoder, codec.encode), None, device=parts.device)
    distilled = bool(parts.architecture["distilled"])
    return TwoExperts(prompts, experts, images, codec, options, distilled=distilled, device=parts.device)


@frozen
class Shared:
    """Constants of a request."""

    rope: Rope
    #: mask and latents of the images, [20, T, h, w]; nothing for text-to-video
    images: Tensor | None = None


class TwoExperts:
    """A loaded A14B model (``VideoModel``)."""

    def __init__(
        self,
        prompts: PromptEncoder,
        experts: Sequence[Transformer],
        images: FirstAndLast,
        codec: Codec,
        options: A14bOptions,
        *,
        distilled: bool,
        device: str,
    ) -> None:
        self._prompts = prompts
        self._experts = experts
        self._images = images
        self._codec = codec
        self._options = options
        self._distilled = distilled
        self._device = device
        self._takes_images = experts[0].network.arch.in_dim > LATENT_CHANNELS

    def encode(self, request: Request, inputs: Mapping[str, Any], *, guided: bool, emit: Emit) -> Conditions:
        """Encode the prompts and, for the tasks that start from images, these."""
        contexts = encoded_prompts(self._prompts, request, guided=guided, emit=emit)
        shape = latent_shape(request, LATENT_CHANNELS, STRIDE)
        images = self._images(request, inputs).channels if self._takes_images else None
        return Conditions(
            latent_shape=shape,
            positive=contexts[0],
            negative=contexts[1] if guided else None,
            shared=Shared(self._experts[0].network.rope(shape, self._device), images),
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Nothing is written into the latents: images come in as channels of their own."""
        return latents

    def expert(self, step: Step) -> int:
        """0 (high noise) from the boundary's timestep upwards, or for the first steps when their number is given.
        Distilled experts share the steps evenly."""
        boundary, steps = self._options.boundary, self._options.boundary_step_index
        if steps is None and boundary is None and self._distilled:
            steps = step.count // 2
        if steps is not None:
            return int(step.index >= steps)
        if boundary is None:
            boundary = IMAGE_BOUNDARY if self._takes_images else TEXT_BOUNDARY
        return int(step.timestep < boundary * 1000)

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Shared
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        count = len(conditions)
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        if shared.images is not None:
            latents = torch.cat((latents, shared.images))
        batch = latents.expand(count, *latents.shape)
        network = self._experts[self.expert(step)]
        return network(batch, timesteps, stacked(conditions), shared.rope).unbind()

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]: the first alone, then four at a time."""
        return self._codec.decode(latents)
