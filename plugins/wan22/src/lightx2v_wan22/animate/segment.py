"""Conditions of Animate's network for one segment of the video, from the outputs of preprocessing.

Shape legend: F frames of the segment, H W frame rows and columns, T h w latent frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from lightx2v_wan21.api import folded, open_image, open_video
from lightx2v_wan22.animate.bilinear import resized_bytes
from lightx2v_wan22.animate.variants import STRIDE, reference_images

#: video [3, F, H, W] in [-1, 1] -> latents [16, T, h, w]
Encode = Callable[[Tensor], Tensor]
MASK_CHANNELS = 4


@frozen(kw_only=True)
class Span:
    """The frames ``start`` to ``start + frames`` of a video, generated as one segment.

    The first ``known`` of them are the last frames of the previous segment.
    """

    start: int
    frames: int
    known: int


@frozen(kw_only=True)
class Reference:
    """Conditions from the reference image."""

    #: mask and latents [20, 1, h, w]
    channels: Tensor
    #: features [1, 257, width]
    features: Tensor


def reference(
    inputs: Mapping[str, Any],
    size: tuple[int, int],
    encode: Encode,
    features: Callable[[Tensor], Tensor],
    device: str,
) -> Reference:
    """Encode the reference image, on a black frame of ``size`` (rows, columns), with the VAE and with CLIP."""
    pixels = torch.from_numpy(np.array(open_image(reference_images(inputs)[0], "ref_images")))
    image = (letterboxed(pixels, *size).permute(2, 0, 1).float() / 127.5 - 1).to(device)
    latents = encode(image[:, None])
    mask = torch.ones(MASK_CHANNELS, *latents.shape[1:], device=latents.device)
    return Reference(channels=torch.cat((mask, latents)), features=features(image)[None])


def pose_latents(inputs: Mapping[str, Any], span: Span, encode: Encode, device: str) -> Tensor:
    """Encode the pose video to latents [16, T, h, w]."""
    return encode(_frames(inputs, "pose_video", span).to(device))


def faces(inputs: Mapping[str, Any], span: Span, device: str) -> Tensor:
    """Read the faces [3, F, 512, 512] in [-1, 1]."""
    return _frames(inputs, "face_video", span).to(device)


def known_channels(
    inputs: Mapping[str, Any],
    span: Span,
    tail: Tensor | None,
    size: tuple[int, int],
    encode: Encode,
    device: str,
) -> Tensor:
    """Build the channels ``[20, T, h, w]`` of the known part of a segment.

    The channels are a mask of 4 channels (1 where a pixel is known), then the latents of the video in which the rest is
    grey. For a replacement, the background outside the mask is known. ``tail`` ``[3, overlap, H, W]`` are the last
    frames of the previous segment.
    """
    rows, columns = size
    if "background_video" in inputs:
        video = _frames(inputs, "background_video", span).to(device)
        person = (_frames(inputs, "mask_video", span, floats=(0.0, 1.0))[0] + 1) / 2
        small = F.interpolate(person[:, None], size=(rows // STRIDE, columns // STRIDE), mode="nearest")
        mask = 1 - small[:, 0].to(device)
    else:
        video = torch.zeros(3, span.frames, rows, columns, device=device)
        mask = torch.zeros(span.frames, rows // STRIDE, columns // STRIDE, device=device)
    if tail is not None:
        video[:, : span.known], mask[: span.known] = tail.to(device), 1
    return torch.cat((folded(mask), encode(video)))


def mirrored(index: int, length: int) -> int:
    """Return the frame of a clip for frame ``index`` of an endless one that plays it forwards and backwards."""
    if length == 1:
        return 0
    place = index % (2 * (length - 1))
    return place if place < length else 2 * (length - 1) - place


def letterboxed(image_HWC: Tensor, rows: int, columns: int) -> Tensor:
    """Fit an image, uint8 ``[H, W, 3]``, into the center of a black one ``[rows, columns, 3]``.

    The bytes are the same as those of the official code.
    """
    height, width = image_HWC.shape[:2]
    if height / width > rows / columns:
        inner = (rows, max(int(rows / height * width), 1))
    else:
        inner = (max(int(columns / width * height), 1), columns)
    canvas = torch.zeros(rows, columns, 3, dtype=torch.uint8)
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resized_bytes(image_HWC, *inner)
    return canvas


def _frames(
    inputs: Mapping[str, Any], name: str, span: Span, floats: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    """Read the frames of a segment [C, F, H, W] in [-1, 1]; a video that is too short plays forwards and backwards."""
    indices = range(span.start, span.start + span.frames)
    clip = open_video(
        inputs[name],
        name,
        pick=lambda shown: [mirrored(index, len(shown)) for index in indices],
        floats=floats,
    )
    return clip.tensor()
