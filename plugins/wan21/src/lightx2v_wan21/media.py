"""Images and videos as tensors, from files and from objects in memory.

Floats in memory are in [-1, 1], like the frames of a generated video; integers are 0..255 (0..65535 for 16 bits).

Shape legend: C channels, F frames, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.api import RequestError
from lightx2v_wan21.media_size import (
    VideoInfo,
    image_axes,
    image_size,
    opened_image,
    opened_video,
    orientation,
    quarter_turns,
    video_axes,
    video_info,
)

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Clip",
    "Intervals",
    "VideoInfo",
    "at_rate",
    "evenly",
    "image_size",
    "image_tensor",
    "open_image",
    "open_video",
    "video_info",
]

#: display time of each frame: start and end in seconds
Intervals = Sequence[tuple[float, float]]
#: selects the frames to keep of a video, in order; frames may repeat
Pick = Callable[[Intervals], Sequence[int]]

#: supported color matrices of H.273: BT.709, FCC, the two of BT.601, SMPTE 240M, BT.2020
_MATRICES = frozenset({1, 4, 5, 6, 7, 9})
#: EXIF orientation -> transposition that undoes it
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@frozen(kw_only=True)
class Clip:
    """Frames of a video: uint8 ``[F, H, W, C]``, or float32 in [-1, 1] if the source has floats.

    C is 3, or 1 for masks in memory. ``fps`` is that of the file, 0 for frames in memory.
    """

    frames: Tensor
    fps: float

    def tensor(self) -> Tensor:
        """Convert to float32 ``[C, F, H, W]`` in [-1, 1]."""
        frames = self.frames.permute(3, 0, 1, 2)
        return frames.float() / 127.5 - 1 if frames.dtype == torch.uint8 else frames


def open_image(source: Any, name: str = "image") -> Image.Image:
    """Read an RGB image from a path, a PIL image, an array or a tensor.

    The EXIF orientation is applied; transparent pixels are blended with white.

    Raises:
        RequestError: the image cannot be read; ``name`` is the input's name.
    """
    from PIL import Image

    if isinstance(source, str | Path):
        with opened_image(source, name) as image:
            return _rgb(image)
    if isinstance(source, Image.Image):
        return _rgb(source)
    axes = image_axes(source, name)[0]
    pixels = _bytes(_tensor(source), name)
    if axes in ("CHW", "C1HW"):
        pixels = pixels.flatten(0, -3).permute(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _rgb(Image.fromarray(pixels.contiguous().numpy()))


def image_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to float32 ``[3, H, W]`` in [-1, 1], with the official arithmetic."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
    return (pixels.float() / 255 - 0.5) / 0.5


def open_video(
    source: Any, name: str = "video", *, pick: Pick | None = None, floats: tuple[float, float] = (-1.0, 1.0)
) -> Clip:
    """Read a video from a path, an array, a tensor or a list of images.

    Args:
        source: the video; a file is decoded frame by frame, and only the selected frames are kept.
        name: the input's name, for messages.
        pick: selects the frames; all of them when absent. Frames in memory count as a second each.
        floats: range of floats in memory; (0, 1) for masks.

    Raises:
        RequestError: the video cannot be read.
    """
    if isinstance(source, str | Path):
        return _read(source, name, pick)
    if isinstance(source, list | tuple):
        video_info(source, name)
        images = [torch.from_numpy(np.array(open_image(image, name))) for image in source]
        if len({image.shape for image in images}) > 1:
            raise RequestError(f"{name}: all images of a list must have the same size")
        frames = torch.stack(images)
    else:
        order = {"FHW": (0, 1, 2), "FHWC": (0, 1, 2, 3), "CFHW": (1, 2, 3, 0), "FCHW": (0, 2, 3, 1)}
        axes = video_axes(source, name)[0]
        frames = _tensor(source).permute(order[axes])
        frames = frames if frames.ndim == 4 else frames[..., None]
        frames = _scaled(frames, name, floats) if frames.dtype.is_floating_point else _bytes(frames, name)
        if frames.shape[3] == 4:
            frames = frames[..., :3]
    if pick is not None:
        frames = frames[list(pick([(float(i), float(i + 1)) for i in range(len(frames))]))]
    return Clip(frames=frames, fps=0)


def evenly(intervals: Intervals, count: int) -> list[int]:
    """Select ``count`` frames evenly over the whole duration, including both ends: the official rule for VACE.

    The duration ends in the middle of the last frame; a moment on a boundary belongs to the earlier frame.
    """
    ends = np.array([end for _, end in intervals], dtype=np.float32)
    moments = np.linspace(0.0, float(np.mean(np.array(intervals[-1], dtype=np.float32))), count)
    return [int(i) for i in np.searchsorted(ends, moments, side="left").clip(0, len(intervals) - 1)]


def at_rate(intervals: Intervals, fps: float) -> list[int]:
    """Select the frames that are shown at 0, 1/fps, 2/fps, ... seconds."""
    ends = np.array([end for _, end in intervals])
    start = intervals[0][0]
    moments = start + np.arange(max(int((ends[-1] - start) * fps + 1e-6), 1)) / fps
    return [int(i) for i in np.searchsorted(ends - 1e-6, moments, side="right").clip(0, len(intervals) - 1)]


def _read(path: str | Path, name: str, pick: Pick | None) -> Clip:
    with opened_video(path, name) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        indices = None if pick is None else list(pick(_intervals(container, stream, rate)))
        keep = None if indices is None else set(indices)
        container.seek(0)
        kept: dict[int, Tensor] = {}
        last, frame = -1, None
        for last, frame in enumerate(container.decode(stream)):
            if keep is None or last in keep:
                kept[last] = _pixels(frame)
            if keep is not None and last >= max(keep):
                break
        if frame is None:
            raise RequestError(f"{name} {str(path)!r} has no frames")
        if keep is not None and max(keep) > last:  # a header may announce more frames than the file has
            kept[last] = _pixels(frame)
    order = sorted(kept) if indices is None else [min(index, last) for index in indices]
    return Clip(frames=torch.stack([kept[index] for index in order]), fps=rate)


def _pixels(frame: Any) -> Tensor:
    """Convert a decoded frame to uint8 ``[H, W, 3]``, rotated for display.

    The matrix and range are those that the frame declares, by default BT.601 and limited range, as in FFmpeg.
    """
    matrix = int(getattr(frame, "colorspace", 0))
    declared = {"src_colorspace": matrix} if matrix in _MATRICES else {}
    pixels = frame.to_ndarray(format="rgb24", **declared)
    return torch.from_numpy(np.rot90(pixels, quarter_turns(frame)).copy())


def _intervals(container: Any, stream: Any, rate: float) -> list[tuple[float, float]]:
    """Compute the display time of each frame from packet headers alone; the clip starts at 0."""
    base, length = float(stream.time_base or 0), 1 / rate if rate else 1.0
    packets = [packet for packet in container.demux(stream) if packet.size]
    if not packets:
        return [(0.0, length)]
    if not base or any(packet.pts is None for packet in packets):
        return [(i * length, (i + 1) * length) for i in range(len(packets))]
    starts = sorted(packet.pts * base for packet in packets)
    starts = [start - starts[0] for start in starts]
    return list(zip(starts, [*starts[1:], starts[-1] + length], strict=True))


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if (turn := orientation(image)) > 1:
        image = image.transpose(Image.Transpose[_TURNS[turn]])
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_wide(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Convert a grayscale image of more than 8 bits to 8 bits; floats are in [0, 1]."""
    from PIL import Image

    pixels = np.asarray(image, dtype=np.float64)
    scaled = pixels * 255 if image.mode == "F" else pixels / 257
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _tensor(source: Any) -> Tensor:
    if isinstance(source, Tensor):
        values = source.detach().cpu()
        return values.to(torch.int32) // 257 if values.dtype == torch.uint16 else values
    array = np.ascontiguousarray(source)
    if array.dtype == np.uint16:
        return torch.from_numpy(array.astype(np.int32) // 257)
    return torch.from_numpy(array.copy())


def _bytes(pixels: Tensor, name: str) -> Tensor:
    """Convert to uint8 pixels 0..255."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    if pixels.dtype.is_floating_point:
        return ((_scaled(pixels, name, (-1.0, 1.0)) + 1) * 127.5).round().to(torch.uint8)
    if pixels.numel() and (pixels.min() < 0 or pixels.max() > 255):
        raise RequestError(f"{name} has integers outside 0..255")
    return pixels.to(torch.uint8)


def _scaled(values: Tensor, name: str, floats: tuple[float, float]) -> Tensor:
    """Rescale floats of a range to float32 in [-1, 1]."""
    low, high = floats
    values = values.float()
    if values.numel() and not (values.min() >= low - 1e-3 and values.max() <= high + 1e-3):
        raise RequestError(
            f"{name} has floats from {values.min():.3g} to {values.max():.3g}; expected floats in "
            f"[{low:g}, {high:g}] or integers in 0..255"
        )
    return values if floats == (-1.0, 1.0) else (values - low) * (2 / (high - low)) - 1
