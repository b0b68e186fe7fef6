"""Sizes of images and videos, from their headers where they are files. Nothing here imports torch."""

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
#: FFmpeg's marks of streams: the default one; an attached picture, and thumbnails with times
_DEFAULT, _PICTURES = 0x1, 0x400 | 0x800


@frozen(kw_only=True)
class VideoInfo:
    """What is known of a video before it is decoded. ``fps`` is 0 for frames given in memory."""

    width: int
    height: int
    frames: int
    fps: float


def image_size(source: Any, name: str = "image") -> tuple[int, int]:
    """Width and height of an image as it is shown: a path (only its header is read), a PIL image, array or tensor.

    Raises:
        RequestError: it cannot be read; ``name`` says which input it is.
    """
    if isinstance(source, str | Path):
        with opened_image(source, name) as image:
            return _shown_size(image)
    if hasattr(source, "getexif"):
        return _shown_size(source)
    height, width = image_axes(source, name)[1:]
    return width, height


def video_info(source: Any, name: str = "video") -> VideoInfo:
    """Size, frame count and rate of a video: a path (its headers and first frame are read), an array or tensor, or a
    list of images.

    Raises:
        RequestError: it cannot be read; ``name`` says which input it is.
    """
    if isinstance(source, str | Path):
        return _file_info(Path(source).expanduser(), name)
    if isinstance(source, list | tuple):
        if not source:
            raise RequestError(f"{name} is an empty list; it takes images, an array, a tensor or a path")
        width, height = image_size(source[0], name)
        return VideoInfo(width=width, height=height, frames=len(source), fps=0)
    frames, _, height, width = video_axes(source, name)[1]
    return VideoInfo(width=width, height=height, frames=frames, fps=0)


def image_axes(source: Any, name: str) -> tuple[str, int, int]:
    """Order of the axes (``HW``, ``HWC``, ``CHW`` or ``C1HW``), height and width of an array or tensor."""
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
        f"{name} is no image: {_described(source)}; it takes a path, a PIL image, or an array or tensor [H, W, 3] or "
        "[3, H, W]"
    )


def video_axes(source: Any, name: str) -> tuple[str, tuple[int, int, int, int]]:
    """Order of the axes of an array or tensor, and frames, channels, height and width."""
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
        f"{name} is no video: {_described(source)}; it takes a path, a list of images, or an array or tensor "
        "[F, H, W, 3] or [3, F, H, W]"
    )


@contextmanager
def opened_image(path: str | Path, name: str) -> Iterator[Any]:
    """An image file, lazily. Whatever goes wrong with it is a ``RequestError``."""
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
        raise RequestError(
            f"{name} {str(path)!r} is no image that can be read (PNG, JPEG, WebP, ...)"
        ) from None
    except Image.DecompressionBombError:
        raise RequestError(f"{name} {str(path)!r} has too many pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as exc:
        raise RequestError(f"{name} {str(path)!r} cannot be read: {exc}") from None


@contextmanager
def opened_video(path: str | Path, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream of a file that players show. Whatever goes wrong with it is a
    ``RequestError``."""
    import av
    from av.error import FFmpegError

    path = Path(path).expanduser()
    if not path.is_file():
        raise RequestError(f"{name} {str(path)!r} does not exist")
    try:
        with av.open(str(path)) as container:
            stream = _shown_stream(container)
            if stream is None:
                pictures = " but a picture (cover art)" if container.streams.video else ""
                raise RequestError(f"{name} {str(path)!r} holds no video{pictures}")
            stream.thread_type = "AUTO"
            yield container, stream
    except (FFmpegError, OSError, EOFError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise RequestError(f"{name} {str(path)!r} is no video that can be read: {reason}") from None


def video_streams(container: Any) -> list[Any]:
    """The streams of a file that are videos, the one that players show first: cover art and thumbnails are streams of
    pictures beside them, and a file may mark one video as the default."""
    videos = [stream for stream in container.streams.video if not int(stream.disposition) & _PICTURES]
    return sorted(videos, key=lambda stream: not int(stream.disposition) & _DEFAULT)


def _shown_stream(container: Any) -> Any:
    return next(iter(video_streams(container)), None)


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that a decoded frame is to be shown with."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _file_info(path: Path, name: str) -> VideoInfo:
    with opened_video(path, name) as (container, stream):
        frames, rate = stream.frames, stream.average_rate or stream.guessed_rate
        if not frames:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            container.seek(0)
        first = next(container.decode(stream), None)
        if first is None:
            raise RequestError(f"{name} {str(path)!r} holds no frame")
        width, height = first.width, first.height
        if quarter_turns(first) % 2:
            width, height = height, width
        return VideoInfo(width=width, height=height, frames=frames, fps=float(rate or 0))


def orientation(image: Any) -> int:
    """How a PIL image is to be turned, 1..8 as in EXIF; only what stands before its pixels is read."""
    from PIL import Image

    orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _shown_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation(image) > 4 else (width, height)


def _described(source: Any) -> str:
    shape = getattr(source, "shape", None)
    what = type(source).__name__
    return what if shape is None else f"{what} of shape {list(shape)}"
