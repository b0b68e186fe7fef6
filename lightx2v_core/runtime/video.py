"""Writing frames while they are decoded: H.264 in MP4, a PNG, or a folder of PNGs.

An output appears when it is complete (``staging``). Pixels follow the official rule: [-1, 1] -> 0..255, truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from lightx2v_core.checkpoint.staging import Staging, write_new
from lightx2v_core.errors import OutputError
from lightx2v_core.plan.output import frame_rate
from lightx2v_core.runtime.audio import Audio
from lightx2v_core.runtime.mp4 import INDEX_IN_FRONT, Sink, colours, reproducible

if TYPE_CHECKING:
    from torch import Tensor


class FrameWriter(Protocol):
    """A writer that receives frames in order."""

    def write(self, frames: Tensor) -> None:
        """Append float frames [3, n, H, W] in [-1, 1]."""


def to_uint8(frames: Tensor) -> Tensor:
    """Convert [3, n, H, W] in [-1, 1] to [n, H, W, 3] uint8 by the official rule: truncated, not rounded."""
    import torch

    return ((frames.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()


class Publication:
    """Results that appear together: videos among other files."""

    def __init__(self) -> None:
        self._files = Staging()
        self._writers: list[tuple[Path, _Mp4 | _Png | _Pngs]] = []

    def video(
        self,
        path: Path,
        kind: str,
        *,
        fps: float,
        width: int,
        height: int,
        crf: int,
        comment: str = "",
        audio: Path | None = None,
    ) -> FrameWriter:
        """Open a writer for ``kind``: ``mp4``, ``png`` or ``frames``; an ``mp4`` gets the audio of the file ``audio``,
        if it has any. Raises ``OutputError`` if ``path`` cannot be written."""
        writer: _Mp4 | _Png | _Pngs
        if kind == "frames":
            writer = _Pngs(self._files.folder(path))
        else:
            file = self._files.file(path)
            with failures_as(path):
                writer = (
                    _Mp4(file, fps=fps, width=width, height=height, crf=crf, comment=comment, audio=audio)
                    if kind == "mp4"
                    else _Png(file)
                )
        self._writers.append((path, writer))
        return _Guarded(writer, path)

    def bytes(self, path: Path, data: bytes) -> None:
        """Write a small file. One inside a folder of frames appears and is removed with that folder."""
        self._files.bytes(path, data)

    def absent(self, path: Path) -> None:
        """Remove a file when the results are published, since it belongs to the results that they replace."""
        self._files.absent(path)

    def publish(self, named: Callable[[], None] = lambda: None) -> None:
        """Complete every file, then rename all of them to their final names; see ``Staging.publish``."""
        for path, writer in self._writers:
            with failures_as(path):
                writer.close()
        self._files.publish(named)

    def discard(self) -> None:
        """Remove the results that are not published, and the folders created for them."""
        for _path, writer in self._writers:
            writer.abandon()
        self._files.discard()


@contextmanager
def publication(named: Callable[[], None] = lambda: None) -> Iterator[Publication]:
    """Publish the results written in the block if it ends without an exception; otherwise remove them. ``named`` is
    called after publication, before a deferred signal is delivered."""
    files = Publication()
    try:
        yield files
        files.publish(named)
    finally:
        files.discard()


@contextmanager
def open_writer(
    path: Path, kind: str, *, fps: float, width: int, height: int, crf: int, comment: str = ""
) -> Iterator[FrameWriter]:
    """Open a writer for a single video, see ``Publication.video``."""
    with publication() as files:
        yield files.video(path, kind, fps=fps, width=width, height=height, crf=crf, comment=comment)


@contextmanager
def failures_as(path: Path) -> Iterator[None]:
    """Convert an error of the file system or the encoder to an ``OutputError`` that names the output."""
    from av.error import FFmpegError

    try:
        yield
    except (OSError, FFmpegError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise OutputError(f"{str(path)!r} could not be written: {reason}; nothing was left behind") from exc


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically."""
    with publication() as files:
        files.bytes(path, data)


class _Guarded:
    """A writer whose errors name the output. Exceptions of the caller, between writes, are not converted."""

    def __init__(self, writer: FrameWriter, path: Path) -> None:
        self._writer, self._path = writer, path

    def write(self, frames: Tensor) -> None:
        with failures_as(self._path):
            self._writer.write(frames)


class _Mp4:
    """H.264, yuv420p, constant quality, with tagged colours and the index at the start of the file."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        fps: float,
        width: int,
        height: int,
        crf: int,
        comment: str,
        audio: Path | None,
    ) -> None:
        import av

        self._sink, self._frames, self._fps = Sink(file), 0, fps
        try:
            self._container = av.open(
                self._sink, mode="w", format="mp4", options=INDEX_IN_FRONT, io_open=self._sink.reader
            )
            if comment:
                self._container.metadata["comment"] = comment
            self._stream = self._container.add_stream(
                "libx264", rate=frame_rate(fps), options={"crf": str(crf)} | reproducible()
            )
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._colours = colours(height)
            self._colours.tag(self._stream.codec_context)
            self._audio = Audio(self._container, audio) if audio is not None else None
        except BaseException:
            self._sink.abandon()
            raise
        self._open = True

    def write(self, frames: Tensor) -> None:
        for image in to_uint8(frames):
            self._mux(self._colours.converted(_rgb_frame(image)))
            self._frames += 1

    def close(self) -> None:
        self._mux(None)
        if self._audio is not None:
            self._audio.write(self._frames / self._fps)
            self._audio.close()
            self._sink.check()
        self._open = False
        self._container.close()
        self._sink.finish()

    def abandon(self) -> None:
        """Close the file after a failure; it will be removed."""
        from av.error import FFmpegError

        if self._open:
            self._open = False
            with suppress(OSError, FFmpegError, ValueError):
                self._container.close()
        self._sink.abandon()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self._sink.check()


class _Png:
    """One image."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, frames: Tensor) -> None:
        for image in to_uint8(frames):
            self._file.write(png_bytes(image))

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Pngs:
    """Images named 00000.png, 00001.png, ... in an open folder."""

    def __init__(self, folder: int) -> None:
        self._folder, self._count = folder, 0

    def write(self, frames: Tensor) -> None:
        for image in to_uint8(frames):
            write_new(self._folder, f"{self._count:05d}.png", png_bytes(image))
            self._count += 1

    def close(self) -> None:
        """Do nothing: every image is complete already."""

    def abandon(self) -> None:
        """Do nothing: no file is open."""


def png_bytes(image: Tensor) -> bytes:
    """Encode a [H, W, 3] uint8 image as a PNG file."""
    import av

    height, width, _ = image.shape
    codec: Any = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb24"
    codec.time_base = Fraction(1, 1)
    return b"".join(bytes(packet) for packet in [*codec.encode(_rgb_frame(image)), *codec.encode(None)])


def _rgb_frame(image: Tensor) -> Any:
    """Convert a [H, W, 3] uint8 image to a PyAV frame, without numpy. Rows of a frame may be padded."""
    import torch
    from av import VideoFrame

    height, width, _ = image.shape
    frame: Any = VideoFrame(width, height, "rgb24")
    plane = frame.planes[0]
    buffer = bytearray(plane.buffer_size)
    rows = torch.frombuffer(buffer, dtype=torch.uint8)[: plane.line_size * height].view(
        height, plane.line_size
    )
    rows[:, : width * 3] = image.view(height, width * 3)
    plane.update(buffer)
    return frame
