"""Sizes of images and videos, for files from their headers. Nothing here imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.api import RequestError

_CHANNELS = (1, 3, 4)
_EXIF_ORIENTATION = 0x0112
#: FFmpeg's dispositions of streams: the default one; an attached picture or timed thumbnails
_DEFAULT, _PICTURES = 0x1, 0x400 | 0x800


@frozen(kw_only=True)
class VideoInfo:
    """Properties of a video that are known before decoding it. ``fps`` is 0 for frames in memory."""

    width: int
    height: int
    frames: int
    fps: float


def image_size(source: Any, name: str = "image") -> tuple[int, int]:
    """Return the display width and height of an image: a path (only its header is read), a PIL image, array or tensor.

    Raises:
        RequestError: the image cannot be read; ``name`` is the input's name.
    """
    if isinstance(source, str | Path):
        with opened_image(source, name) as image:
            return _shown_size(image)
    if hasattr(source, "getexif"):
        return _shown_size(source)
    height, width = image_axes(source, name)[1:]
    return width, height


def video_info(source: Any, name: str = "video") -> VideoInfo:
    """Return the size, frame count and rate of a video.

    The source is a path (its headers and first frame are read), an array or tensor, or a list of images.

    Raises:
        RequestError: the video cannot be read; ``name`` is the input's name.
    """
    if isinstance(source, str | Path):
        return _file_info(Path(source).expanduser(), name)
    if isinstance(source, list | tuple):
        if not source:
            raise RequestError(f"{name} is an empty list; expected images, an array, a tensor or a path")
        width, height = image_size(source[0], name)
        return VideoInfo(width=width, height=height, frames=len(source), fps=0)
    frames, _, height, width = video_axes(source, name)[1]
    return VideoInfo(width=width, height=height, frames=frames, fps=0)


def image_axes(source: Any, name: str) -> tuple[str, int, int]:
    """Return the order of axes (``HW``, ``HWC``, ``CHW`` or ``C1HW``), height and width of an array or tensor."""
    shape = tuple(getattr(source, "shape", ()))
    if len(shape) == 2:
        return "HW", shape[0], shape[1]
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return "HWC", shape[0], shape[1]
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return "CHW", shape[1], shape[2]
    if len(shape) == 4 and shape[0] in _CHANNELS and shape[1] == 1:
        return "C1HW", shape[2], shape[3]
    raise RequestError(
        f"{name} is not an image: {_described(source)}; expected a path, a PIL image, or an array or tensor [H, W, 3] "
        "or [3, H, W]"
    )


def video_axes(source: Any, name: str) -> tuple[str, tuple[int, int, int, int]]:
    """Return the order of axes of an array or tensor, and its frames, channels, height and width."""
    shape = tuple(getattr(source, "shape", ()))
    if len(shape) == 3:
        return "FHW", (shape[0], 1, shape[1], shape[2])
    if len(shape) == 4 and shape[3] in _CHANNELS:
        return "FHWC", (shape[0], shape[3], shape[1], shape[2])
    if len(shape) == 4 and shape[0] in _CHANNELS:
        return "CFHW", (shape[1], shape[0], shape[2], shape[3])
    if len(shape) == 4 and shape[1] in _CHANNELS:
        return "FCHW", (shape[0], shape[1], shape[2], shape[3])
    raise RequestError(
        f"{name} is not a video: {_described(source)}; expected a path, a list of images, or an array or tensor "
        "[F, H, W, 3] or [3, F, H, W]"
    )


@contextmanager
def opened_image(path: str | Path, name: str) -> Iterator[Any]:
    """Open an image file lazily. Every error in reading it becomes a ``RequestError``."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # PIL warns of large images, and of details that do not matter here
            warnings.simplefilter("ignore")
            with Image.open(Path(path).expanduser()) as image:
                yield image
    except FileNotFoundError:
        raise RequestError(f"{name} {str(path)!r} does not exist") from None
    except UnidentifiedImageError:
        raise RequestError(f"{name} {str(path)!r} is not a readable image (PNG, JPEG, WebP, ...)") from None
    except Image.DecompressionBombError:
        raise RequestError(f"{name} {str(path)!r} has too many pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as exc:
        raise RequestError(f"{name} {str(path)!r} cannot be read: {exc}") from None


@contextmanager
def opened_video(path: str | Path, name: str) -> Iterator[tuple[Any, Any]]:
    """Open a video file; yields the container and the video stream that players show.

    Every error in reading it becomes a ``RequestError``.
    """
    import av
    from av.error import FFmpegError

    path = Path(path).expanduser()
    if not path.is_file():
        raise RequestError(f"{name} {str(path)!r} does not exist")
    try:
        with av.open(str(path)) as container:
            stream = _shown_stream(container)
            if stream is None:
                pictures = ", only cover art" if container.streams.video else ""
                raise RequestError(f"{name} {str(path)!r} has no video stream{pictures}")
            stream.thread_type = "AUTO"
            yield container, stream
    except (FFmpegError, OSError, EOFError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise RequestError(f"{name} {str(path)!r} is not a readable video: {reason}") from None


def video_streams(container: Any) -> list[Any]:
    """Return the video streams of a file, first the one that players show.

    Cover art and thumbnails are streams of pictures and are left out; a file may mark one video as the default.
    """
    videos = [stream for stream in container.streams.video if not int(stream.disposition) & _PICTURES]
    return sorted(videos, key=lambda stream: not int(stream.disposition) & _DEFAULT)


def _shown_stream(container: Any) -> Any:
    return next(iter(video_streams(container)), None)


def quarter_turns(frame: Any) -> int:
    """Return the counter-clockwise quarter turns to apply to a decoded frame for display."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _file_info(path: Path, name: str) -> VideoInfo:
    with opened_video(path, name) as (container, stream):
        frames, rate = stream.frames, stream.average_rate or stream.guessed_rate
        if not frames:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            container.seek(0)
        first = next(container.decode(stream), None)
        if first is None:
            raise RequestError(f"{name} {str(path)!r} has no frames")
        width, height = first.width, first.height
        if quarter_turns(first) % 2:
            width, height = height, width
        return VideoInfo(width=width, height=height, frames=frames, fps=float(rate or 0))


def orientation(image: Any) -> int:
    """Return the orientation of a PIL image, 1..8 as in EXIF; only the data before its pixels is read."""
    from PIL import Image

    orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _shown_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation(image) > 4 else (width, height)


def _described(source: Any) -> str:
    shape = getattr(source, "shape", None)
    name = type(source).__name__
    return name if shape is None else f"{name} of shape {list(shape)}"
