"""The TI2V pipeline: text to video, or an image that becomes the first frame.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, L video tokens, H W frame rows and
columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from lightx2v_core.api import Conditions, ModelParts, Request, Step
from lightx2v_wan21.api import (
    ConditionedVideo,
    Extras,
    image_tensor,
    load_codec,
    load_prompt_encoder,
    load_transformer,
    open_image,
)
from lightx2v_wan22.options import Ti2vOptions
from lightx2v_wan22.vae22.network import SPACE, Wan22Vae


@frozen(kw_only=True)
class FirstFrame(Extras):
    """The first frame of the video, from the image."""

    #: its latents [48, 1, h, w]
    first: Tensor


class TextImageToVideo(ConditionedVideo):
    """A loaded TI2V model: the latents of an image replace the first latent frame and have no noise."""

    def __init__(self, options: Ti2vOptions, parts: ModelParts) -> None:
        """Build the networks on the meta device and load their weights."""
        prompts = load_prompt_encoder(parts, parts.architecture["dit"]["text_len"])
        transformer = load_transformer(parts)
        codec = load_codec(parts, options, Wan22Vae, SPACE)
        super().__init__(prompts, [transformer], codec, self._first_frame, device=parts.device)

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Overwrite the first latent frame with the image's latents, before the first step and after every one."""
        extras = conditions.shared.extras if conditions.shared is not None else None
        return torch.cat((extras.first, latents[:, 1:]), dim=1) if isinstance(extras, FirstFrame) else latents

    def timesteps(self, latents: Tensor, step: Step, count: int, extras: Extras) -> Tensor:
        """Return a timestep for each pass [B], or with an image for each token [B, L]: 0 for tokens of the image."""
        timesteps = super().timesteps(latents, step, count, extras)
        if not isinstance(extras, FirstFrame):
            return timesteps
        frames, rows, columns = self._transformers[0].network.grid(latents.shape[1:])
        timesteps = timesteps[:, None].repeat(1, frames * rows * columns)
        timesteps[:, : rows * columns] = 0
        return timesteps

    def _first_frame(self, request: Request, inputs: Mapping[str, Any]) -> Extras:
        if "image" not in inputs:
            return Extras()
        image = first_frame(open_image(inputs["image"]), request.width, request.height)
        return FirstFrame(first=self._codec.encode(image.to(self._device)))


def first_frame(image: Image.Image, width: int, height: int) -> Tensor:
    """Scale the image to cover the frame (Lanczos) and crop its center: [3, 1, H, W] in [-1, 1]."""
    scale = max(width / image.width, height / image.height)
    covering = (round(image.width * scale), round(image.height * scale))
    image = image.resize(covering, Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image_tensor(image.crop((left, top, left + width, top + height)))[:, None]
