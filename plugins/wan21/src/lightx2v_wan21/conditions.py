"""Conditions of the networks of i2v, flf2v and vace other than text, prepared as in the official pipelines.

Shape legend: F frames, H W rows and columns of the video; T h w of its latents; X Y of a source image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from lightx2v_wan21.sizes import SPATIAL_STRIDE, TEMPORAL_STRIDE

#: video [3, F, H, W] in [-1, 1] -> latents [16, T, h, w]
Encode = Callable[[Tensor], Tensor]


@frozen(kw_only=True)
class Extras:
    """Conditions of a request other than text."""

    #: channels appended to those of the latent, [20, T, h, w]
    channels: Tensor | None = None
    #: image features [images, 257, width]
    image: Tensor | None = None
    #: VACE condition [96, T, h, w]
    vace: Tensor | None = None
    #: strength of the VACE condition
    vace_scale: float = 1.0
    #: number of leading latent frames for reference images
    references: int = 0


def known_frames(
    first: Tensor, last: Tensor | None, frames: int, height: int, width: int, encode: Encode
) -> Tensor:
    """Build the channels ``[20, T, h, w]`` of a known first frame and, optionally, a known last one.

    The channels are a mask of 4 channels (1 where a frame is known), then the latents of the video in which all other
    frames are grey.

    Args:
        first: the first image, ``[3, X, Y]`` in [-1, 1] of any size.
        last: the last one, if it is known.
        frames: frames of the video, 4k + 1.
        height: rows of the video.
        width: columns of the video.
        encode: the VAE.
    """
    video = torch.zeros(3, frames, height, width, device=first.device)
    mask = torch.zeros(frames, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE, device=first.device)
    video[:, 0], mask[0] = resized(first, height, width), 1
    if last is not None:
        video[:, -1], mask[-1] = resized(last, height, width), 1
    return torch.cat((folded(mask), encode(video)))


def folded(mask_FHW: Tensor) -> Tensor:
    """Fold a mask of latent pixels ``[F, h, w]`` to ``[4, T, h, w]``: frames of a latent frame become its channels.

    The first frame fills all four channels of the first latent frame.
    """
    repeated = torch.cat((mask_FHW[:1].expand(TEMPORAL_STRIDE - 1, -1, -1), mask_FHW))
    return repeated.view(-1, TEMPORAL_STRIDE, *mask_FHW.shape[1:]).transpose(0, 1)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image ``[3, X, Y]`` to ``[3, H, W]``, bicubic without antialiasing; values may leave [-1, 1]."""
    return F.interpolate(image[None], size=(height, width), mode="bicubic", align_corners=False)[0]


def vace_context(
    video: Tensor, mask: Tensor, references: Sequence[Tensor], encode: Encode
) -> tuple[Tensor, int]:
    """Build the VACE condition ``[96, R + T, h, w]``; also returns R, its latent frames for reference images.

    The channels are 16 of the unchanged part, 16 of the changed part, and 64 of the mask.

    Args:
        video: ``[3, F, H, W]`` in [-1, 1].
        mask: ``[1, F, H, W]`` in [0, 1]; 1 where the video is generated.
        references: R images ``[3, X, Y]`` in [-1, 1].
        encode: the VAE.
    """
    changes = (mask > 0.5).to(video.dtype)
    latents = torch.cat((encode(video * (1 - changes)), encode(video * changes)))
    context = torch.cat((latents, vace_mask(mask[0])))
    if not references:
        return context, 0
    height, width = video.shape[2:]
    front = []
    for image in references:
        latent = encode(letterboxed(image.to(video.device), height, width)[:, None])
        front.append(torch.cat((latent, latent.new_zeros(len(context) - len(latent), *latent.shape[1:]))))
    return torch.cat((*front, context), dim=1), len(front)


def vace_mask(mask_FHW: Tensor) -> Tensor:
    """Fold a mask of pixels to ``[64, T, h, w]``: pixels of a latent pixel become channels, frames are subsampled."""
    frames, height, width = mask_FHW.shape
    stride, rows, columns = SPATIAL_STRIDE, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE
    pixels = mask_FHW.view(frames, rows, stride, columns, stride).permute(2, 4, 0, 1, 3)
    size = ((frames + TEMPORAL_STRIDE - 1) // TEMPORAL_STRIDE, rows, columns)
    return F.interpolate(pixels.flatten(0, 1)[None], size=size, mode="nearest-exact")[0]


def letterboxed(image: Tensor, height: int, width: int) -> Tensor:
    """Fit an image ``[3, X, Y]`` into the center of a white ``[3, H, W]``, bilinear."""
    if image.shape[1:] == (height, width):
        return image
    scale = min(height / image.shape[1], width / image.shape[2])
    rows, columns = (max(int(size * scale), 1) for size in image.shape[1:])
    inner = F.interpolate(image[None], size=(rows, columns), mode="bilinear", align_corners=False)[0]
    canvas = torch.ones(3, height, width, device=image.device)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[:, top : top + rows, left : left + columns] = inner
    return canvas


def covered(frames_FCHW: Tensor, height: int, width: int) -> Tensor:
    """Resize frames (bicubic, antialiased) to cover a size, and crop their center: ``[F, C, H, W]``.

    The dtype is unchanged; uint8 is resized as such, as in the official code.
    """
    if frames_FCHW.shape[2:] == (height, width):
        return frames_FCHW
    rows, columns = frames_FCHW.shape[2:]
    scale = max(width / columns, height / rows)
    size = (max(round(scale * rows), height), max(round(scale * columns), width))
    frames_FCHW = F.interpolate(frames_FCHW, size=size, mode="bicubic", antialias=True)
    if frames_FCHW.dtype.is_floating_point:
        frames_FCHW = frames_FCHW.clamp(-1, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return frames_FCHW[:, :, top : top + height, left : left + width]
