"""The TI2V pipeline: text to video, or an image that becomes the first frame.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, L video tokens, S text tokens,
D text width, X Y frame rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, ModelParts, Request, Step
from lightx2v_wan21.api import PromptEncoder, Rope, image_tensor, open_image
from lightx2v_wan22.options import Ti2vOptions
from lightx2v_wan22.parts import (
    Codec,
    Transformer,
    encoded_prompts,
    latent_shape,
    load_prompts,
    load_transformer,
    load_vae22,
    stacked,
)
from lightx2v_wan22.ti2v.architecture import LATENT_CHANNELS, SPATIAL_STRIDE


def build(options: Ti2vOptions, parts: ModelParts) -> TextImageToVideo:
    """Build the networks on the meta device and have them filled."""
    prompts = load_prompts(parts, parts.architecture["dit"]["text_len"])
    network = load_transformer(parts, "dit")
    return TextImageToVideo(prompts, network, load_vae22(parts, options), device=parts.device)


@frozen
class Shared:
    """Constants of a request."""

    rope: Rope
    #: latents of the first frame, [48, 1, h, w]; nothing for text-to-video
    first: Tensor | None = None


class TextImageToVideo:
    """A loaded TI2V model (``VideoModel``)."""

    def __init__(self, prompts: PromptEncoder, network: Transformer, codec: Codec, *, device: str) -> None:
        self._prompts = prompts
        self._network = network
        self._codec = codec
        self._device = device

    def encode(self, request: Request, inputs: Mapping[str, Any], *, guided: bool, emit: Emit) -> Conditions:
        """Encode the prompts and the image, if there is one."""
        contexts = encoded_prompts(self._prompts, request, guided=guided, emit=emit)
        shape = latent_shape(request, LATENT_CHANNELS, SPATIAL_STRIDE)
        first = None
        if "image" in inputs:
            image = first_frame(open_image(inputs["image"]), request.width, request.height)
            first = self._codec.encode(image.to(self._device))
        return Conditions(
            latent_shape=shape,
            positive=contexts[0],
            negative=contexts[1] if guided else None,
            shared=Shared(self._network.network.rope(shape, self._device), first),
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """The first latent frame is the image's, before the first step and after every one."""
        first = conditions.shared.first if conditions.shared is not None else None
        return latents if first is None else torch.cat((first, latents[:, 1:]), dim=1)

    def expert(self, step: Step) -> int:
        """There is one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Shared
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        count = len(conditions)
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        if shared.first is not None:
            # The tokens of the image are told that they hold no noise.
            frames, rows, columns = self._network.network.grid(latents.shape[1:])
            timesteps = timesteps[:, None].repeat(1, frames * rows * columns)
            timesteps[:, : rows * columns] = 0
        batch = latents.expand(count, *latents.shape)
        return self._network(batch, timesteps, stacked(conditions), shared.rope).unbind()

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]: the first alone, then four at a time."""
        return self._codec.decode(latents)


def first_frame(image: Image.Image, width: int, height: int) -> Tensor:
    """The image scaled to cover the frame (Lanczos) and cropped around its centre, [3, 1, X, Y] in [-1, 1]."""
    scale = max(width / image.width, height / image.height)
    covering = (round(image.width * scale), round(image.height * scale))
    image = image.resize(covering, Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image_tensor(image.crop((left, top, left + width, top + height)))[:, None]
