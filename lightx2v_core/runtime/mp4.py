"""Properties of MP4 files that play everywhere and are reproducible: index at the start, tagged colours, same bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from attrs import frozen

#: options of the muxer that let a player start before it has read the whole file (``moov`` before ``mdat``)
INDEX_IN_FRONT = {"movflags": "faststart"}
#: code points of ITU-T H.273: BT.709, BT.601 with 525 lines, and limited range
_BT709, _BT601, _LIMITED = 1, 6, 1
#: number of lines from which players treat a video as high definition
_HD_LINES = 720


class Sink:
    """The output file of an encoder. PyAV drops some of the exceptions of its callbacks with a traceback on stderr, so
    the first one is stored here, and raised by ``check``."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
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
        with suppress(OSError):  # the buffered rest may not fit on the full disk that caused the failure
            self._file.close()

    def reader(self, _url: str, _flags: int, _options: Mapping[str, str]) -> _Reader:
        """Open the written part of the file for the muxer, which moves it behind the index."""
        return _Reader(self)

    def written(self, size: int, at: int) -> bytes:
        """Read bytes that were written before; none after a failure."""
        if self._failure is None:
            try:
                self._file.flush()
                return os.pread(self._file.fileno(), size, at)
            except BaseException as exc:
                self._failure = exc
        return b""

    def end(self) -> int:
        """Return the size of the file; 0 after a failure."""
        try:
            self._file.flush()
            return os.fstat(self._file.fileno()).st_size
        except BaseException as exc:
            self._failure = self._failure or exc
            return 0


class _Reader:
    """A reader, with its own position, of a file that is being written."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._at = sink, 0

    def read(self, size: int) -> bytes:
        data = self._sink.written(size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self._at if whence == 1 else self._sink.end() if whence == 2 else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Do nothing: the file belongs to the writer."""


@frozen(kw_only=True)
class Colours:
    """The conversion of RGB to YCbCr; ``matrix`` is a code point of H.273."""

    matrix: int

    def tag(self, codec: Any) -> None:
        """Tag the stream with its colour space. Primaries and transfer stay those of the sRGB images: BT.709's."""
        codec.colorspace, codec.color_range = self.matrix, _LIMITED
        codec.color_primaries, codec.color_trc = _BT709, _BT709

    def converted(self, frame: Any) -> Any:
        """Convert an RGB frame for the encoder."""
        from av.video.reformatter import Colorspace

        matrix = Colorspace.ITU709 if self.matrix == _BT709 else Colorspace.ITU601
        return frame.reformat(format="yuv420p", dst_colorspace=matrix)


def colours(height: int) -> Colours:
    """Return BT.709 from 720 lines on and BT.601 below, as assumed by players that ignore tags."""
    return Colours(matrix=_BT709 if height >= _HD_LINES else _BT601)


def reproducible() -> dict[str, str]:
    """Return options of x264 with which the same frames result in the same file.

    Its AVX-512 code is not deterministic: of 40 files of the same 13 frames of 226x128, 28 were different (x264 of
    PyAV 18.1). Its AVX2 code, which each processor with AVX-512 supports, is deterministic and about as fast.
    """
    return {"x264-params": "asm=AVX2"} if _has_avx512() else {}


@cache
def _has_avx512() -> bool:
    """Return whether the processor has AVX-512, independent of torch's settings."""
    try:
        return " avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        import torch

        return torch.backends.cpu.get_cpu_capability() == "AVX512"
