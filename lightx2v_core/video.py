"""Writes frames as they are decoded: H.264 in MP4, a PNG, or a folder of PNGs.

Everything is written under a temporary name beside its target and renamed at the end, so that an output is whole
or not there. Pixels follow the official rule: [-1, 1] -> 0..255, truncated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightx2v_core.audio import Audio
from lightx2v_core.errors import OutputError
from lightx2v_core.output import frame_rate, make_parents

if TYPE_CHECKING:
    from torch import Tensor


class FrameWriter(Protocol):
    """Takes frames in order."""

    def write(self, frames: Tensor) -> None:
        """Append float frames [3, n, X, Y] in [-1, 1]."""


def to_uint8(frames: Tensor) -> Tensor:
    """[3, n, X, Y] in [-1, 1] -> [n, X, Y, 3] uint8 by the official rule: truncated, not rounded."""
    import torch

    return ((frames.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu()


class Publication:
    """Results that appear together: each is written under a temporary name, and all are renamed at the end."""

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []
        self._writers: list[tuple[Path, _Mp4 | _Pngs]] = []
        self._made: list[Path] = []

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
        """A writer for ``kind``: ``mp4``, ``png`` or ``frames``; an ``mp4`` gets the sound of ``audio``, if there is
        any. ``OutputError`` when it cannot be written."""
        part = self._stage(path)
        with failures_as(path):
            writer: _Mp4 | _Pngs
            if kind == "mp4":
                writer = _Mp4(
                    part, fps=fps, width=width, height=height, crf=crf, comment=comment, audio=audio
                )
            else:
                writer = _Pngs(part, folder=kind == "frames")
        self._writers.append((path, writer))
        return _Guarded(writer, path)

    def bytes(self, path: Path, data: bytes) -> None:
        """A small file. One inside a folder of frames comes and goes with that folder."""
        folder = next(
            (part for target, part in self._staged if target == path.parent and part.is_dir()), None
        )
        part = folder / path.name if folder is not None else self._stage(path)
        with failures_as(path):
            part.write_bytes(data)

    def publish(self) -> None:
        """Finish every file, and only then give them their names."""
        for path, writer in self._writers:
            with failures_as(path):
                writer.close()
        for path, part in self._staged:
            with failures_as(path):
                _publish(part, path)
        self._made.clear()

    def discard(self) -> None:
        """Remove what was not published, and the folders that were made for it."""
        for _path, writer in self._writers:
            writer.abandon()
        for _path, part in self._staged:
            _remove(part)
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()

    def _stage(self, path: Path) -> Path:
        self._made += make_parents(path)
        # not longer than any file name may be, and apart from the other parts of this process
        part = path.with_name(f".{path.name[:40]}.part-{os.getpid()}-{len(self._staged)}")
        self._staged.append((path, part))
        _remove(part)
        return part


@contextmanager
def publication() -> Iterator[Publication]:
    """What is written in the block appears when it ends without an exception; otherwise nothing is left."""
    files = Publication()
    try:
        yield files
        files.publish()
    finally:
        files.discard()


@contextmanager
def open_writer(
    path: Path, kind: str, *, fps: float, width: int, height: int, crf: int, comment: str = ""
) -> Iterator[FrameWriter]:
    """A writer for a video alone, see ``Publication.video``."""
    with publication() as files:
        yield files.video(path, kind, fps=fps, width=width, height=height, crf=crf, comment=comment)


@contextmanager
def failures_as(path: Path) -> Iterator[None]:
    """Turn a failing file system or encoder into an ``OutputError`` that names the output."""
    from av.error import FFmpegError

    try:
        yield
    except (OSError, FFmpegError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise OutputError(f"{str(path)!r} could not be written: {reason}; nothing was left behind") from exc


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with publication() as files:
        files.bytes(path, data)


class _Guarded:
    """A writer whose failures name the output. The caller's own failures, in between, stay what they are."""

    def __init__(self, writer: FrameWriter, path: Path) -> None:
        self._writer, self._path = writer, path

    def write(self, frames: Tensor) -> None:
        with failures_as(self._path):
            self._writer.write(frames)


class _Sink:
    """The file behind an encoder. PyAV drops some of the exceptions of its callbacks with a traceback on stderr, so
    the first one is kept here, and raised by ``check``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        if self._failure is None:
            try:
                self._file.write(data)
            except BaseException as exc:
                self._failure = exc
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except BaseException as exc:
            self._failure = self._failure or exc
            return 0

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        self.check()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with suppress(
            OSError
        ):  # what is still in its buffer may not fit on the full disk that brought us here
            self._file.close()


class _Mp4:
    """H.264, yuv420p, constant quality."""

    def __init__(
        self, path: Path, *, fps: float, width: int, height: int, crf: int, comment: str, audio: Path | None
    ) -> None:
        import av

        self._sink, self._frames, self._fps = _Sink(path), 0, fps
        try:
            self._container = av.open(self._sink, mode="w", format="mp4")
            if comment:
                self._container.metadata["comment"] = comment
            self._stream = self._container.add_stream(
                "libx264", rate=frame_rate(fps), options={"crf": str(crf)} | _reproducible()
            )
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._audio = Audio(self._container, audio) if audio is not None else None
        except BaseException:
            self._sink.abandon()
            raise
        self._open = True

    def write(self, frames: Tensor) -> None:
        for image in to_uint8(frames):
            self._mux(_rgb_frame(image))
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
        """Let go of the file after a failure; what is in it will be removed."""
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


def _reproducible() -> dict[str, str]:
    """Options of x264 with which the same frames make the same file.

    Its AVX-512 code does not: of 40 files of the same 13 frames of 226x128, 28 were different (x264 of PyAV 18.1). Each
    processor with AVX-512 also has AVX2, whose code does, and is about as fast.
    """
    import torch

    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return {"x264-params": "asm=AVX2"} if avx512 else {}


class _Pngs:
    """One PNG, or a folder of them named 00000.png, 00001.png, ..."""

    def __init__(self, path: Path, *, folder: bool) -> None:
        self._path, self._folder, self._count = path, folder, 0
        if folder:
            path.mkdir()

    def write(self, frames: Tensor) -> None:
        for image in to_uint8(frames):
            target = self._path / f"{self._count:05d}.png" if self._folder else self._path
            target.write_bytes(png_bytes(image))
            self._count += 1

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def png_bytes(image: Tensor) -> bytes:
    """A [X, Y, 3] uint8 image as a PNG file."""
    import av

    height, width, _ = image.shape
    codec: Any = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb24"
    codec.time_base = Fraction(1, 1)
    return b"".join(bytes(packet) for packet in [*codec.encode(_rgb_frame(image)), *codec.encode(None)])


def _rgb_frame(image: Tensor) -> Any:
    """A PyAV frame of a [X, Y, 3] uint8 image, without numpy. Rows of a frame may be padded."""
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


def _publish(part: Path, path: Path) -> None:
    """Move a finished result to its name. A folder of frames is moved into an existing folder file by file."""
    if part.is_dir() and path.is_dir():
        for file in sorted(part.iterdir()):
            file.replace(path / file.name)
        part.rmdir()
    else:
        part.replace(path)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)
