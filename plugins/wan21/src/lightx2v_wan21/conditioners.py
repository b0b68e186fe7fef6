"""Conversion of a request's inputs to conditions of the network other than text: reads media and runs the encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.api import LoadedComponent, Request, RequestError
from lightx2v_wan21.clip import ClipVision
from lightx2v_wan21.conditions import Encode, Extras, covered, known_frames, vace_context
from lightx2v_wan21.media import Clip, Intervals, evenly, image_tensor, open_image, open_video, video_info
from lightx2v_wan21.video_vae import VideoVae

#: builds the conditions of a request other than text
Conditioner = Callable[[Request, Mapping[str, Any]], Extras]


class VaeEncoder:
    """Encoder of videos to latents; keeps the VAE on the device during a call."""

    def __init__(self, vae: VideoVae, component: LoadedComponent) -> None:
        self._vae = vae
        self._component = component

    def __call__(self, video: Tensor) -> Tensor:
        """Encode a video [3, F, H, W] in [-1, 1] to latents [16, T, h, w]."""
        with self._component.offloader.active(self._component.name):
            return self._vae.encode(video)


class ImageEncoder:
    """Encoder of images to CLIP features; keeps CLIP on the device during a call."""

    def __init__(self, network: ClipVision, component: LoadedComponent) -> None:
        self._network = network
        self._component = component

    def __call__(self, image: Tensor) -> Tensor:
        """Encode an image [3, H, W] in [-1, 1] to features [257, width]."""
        with self._component.offloader.active(self._component.name):
            features: Tensor = self._network(image[None])[0]
            return features


class FirstAndLast:
    """Conditioner of i2v and flf2v: the first image, and the last one if given, as frames of the video and as features.

    Wan2.1 has an image encoder; Wan2.2 has none, so ``features`` is None there.
    """

    def __init__(self, encode: Encode, features: ImageEncoder | None, *, device: str) -> None:
        self._encode = encode
        self._features = features
        self._device = device

    def __call__(self, request: Request, inputs: Mapping[str, Any]) -> Extras:
        """Compute features of the images at their own size, and the channels with the images as frames."""
        first = open_image(inputs["image"], "image")
        images = [image_tensor(first).to(self._device)]
        if inputs.get("last_image") is not None:
            last = open_image(inputs["last_image"], "last_image")
            images.append(image_tensor(_as_large_as(last, first)).to(self._device))
        channels = known_frames(
            images[0],
            images[1] if len(images) > 1 else None,
            request.frames,
            request.height,
            request.width,
            self._encode,
        )
        if self._features is None:
            return Extras(channels=channels)
        return Extras(channels=channels, image=torch.stack([self._features(image) for image in images]))


class Vace:
    """Conditioner of vace: a source video, a mask of the changes in it, and reference images, all of them optional."""

    def __init__(self, encode: Encode, *, scale: float, device: str) -> None:
        self._encode = encode
        self._scale = scale
        self._device = device

    def __call__(self, request: Request, inputs: Mapping[str, Any]) -> Extras:
        """Compute the VACE condition; without a mask, the whole video is generated."""
        height, width, device = request.height, request.width, self._device
        source, mask_source = inputs.get("src_video"), inputs.get("src_mask")
        mask = torch.ones(1, request.frames, height, width, device=device)
        if source is None:
            video = torch.zeros(3, request.frames, height, width, device=device)
        else:
            picked = _Picked(request.frames, mask_source)
            video = _fitted(open_video(source, "src_video", pick=picked), height, width, device)
            if mask_source is not None:
                clip = open_video(mask_source, "src_mask", pick=picked.again, floats=(0.0, 1.0))
                mask = ((_fitted(clip, height, width, device)[:1] + 1) / 2).clamp(0, 1)
        references = [image_tensor(open_image(image, "ref_images")) for image in reference_images(inputs)]
        context, front = vace_context(video, mask, references, self._encode)
        return Extras(vace=context, vace_scale=self._scale, references=front)


def reference_images(inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the reference images of a request as a tuple; empty without any."""
    given = inputs.get("ref_images")
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


class _Picked:
    """Selection of frames of a source video, and of the same frames of its mask. A mask of one frame applies to all."""

    def __init__(self, frames: int, mask: Any | None) -> None:
        self._frames = frames
        self._masks = None if mask is None else video_info(mask, "src_mask").frames
        self._ids: list[int] = []

    def __call__(self, intervals: Intervals) -> list[int]:
        length = len(intervals) if self._masks in (None, 1) else min(len(intervals), self._masks or 1)
        self._ids = evenly(intervals[:length], self._frames)
        return self._ids

    def again(self, intervals: Intervals) -> list[int]:
        """Return the indices of the mask's frames."""
        return [min(index, len(intervals) - 1) for index in self._ids]


def _fitted(clip: Clip, height: int, width: int, device: str) -> Tensor:
    """Convert a clip to float32 [C, F, H, W] in [-1, 1], cropped to the size."""
    frames = covered(clip.frames.permute(0, 3, 1, 2), height, width).permute(0, 2, 3, 1)
    return Clip(frames=frames, fps=clip.fps).tensor().to(device)


def _as_large_as(last: Any, first: Any) -> Any:
    """Scale the last image to cover the size of the first, and crop its center."""
    from PIL import Image, ImageOps

    if last.size == first.size:
        return last
    try:
        return ImageOps.fit(last, first.size, method=Image.Resampling.BICUBIC)
    except ValueError as exc:  # a side that would vanish
        raise RequestError(f"last_image cannot be resized to the size of image: {exc}") from None
