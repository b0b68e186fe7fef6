"""Reading byte ranges of files directly into the memory of tensors: each byte once, and without memory mapping."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from attrs import frozen

from lightx2v_core.checkpoint.direct_io import open_uncached, read_at
from lightx2v_core.errors import CheckpointError, RunError
from lightx2v_core.spec.tensors import Header, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class OpenFile:
    """An open file, and its state when it was opened: size and modification time."""

    descriptor: int
    state: tuple[int, int]


class PositionedSource:
    """A ``WeightSource`` for the tensors of a header, which may be in several files. Each is stored contiguously at its
    ``offset``, in the layout of memory. When a file is opened, ``read_header`` reads its header again, to check that it
    has not changed."""

    def __init__(self, header: Header, read_header: Callable[[Path], Header]) -> None:
        self._tensors = header.tensors
        self._read_header = read_header
        self._files = OpenFiles(self._check)

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        return self._tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read the tensor onto ``device``. Raises ``RunError`` if its file changed or vanished since planning."""
        info = self._tensors[name]
        assert info.offset is not None
        shape = info.stored_shape
        flat = self._files.read(info.file, info.offset, prod(shape), info.stored_dtype, name)
        return flat.view(shape).to(device)

    def direct(self, name: str) -> bool:
        """Return whether the tensor has an offset: the file then stores it in the layout of memory."""
        return self._tensors[name].offset is not None

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read the tensor into ``out``, which has the stored shape and dtype. Raises ``RunError`` as ``read`` does;
        thread-safe."""
        info = self._tensors[name]
        assert info.offset is not None
        self._files.read_into(info.file, info.offset, out, name, cached=cached)

    def close(self) -> None:
        self._files.close()

    def _check(self, path: Path) -> None:
        """Compare the header of a newly opened file with the planned one. Raises ``RunError`` if it changed."""
        try:
            now = self._read_header(path).tensors
        except CheckpointError as exc:
            raise RunError(f"{path} changed since planning: {exc}") from None
        for name, info in self._tensors.items():
            if info.file == path and now.get(name) != info:
                raise RunError(f"{path} changed since planning: tensor {name!r} has moved or changed")


class OpenFiles:
    """Files that are opened on first use; ``check`` is called with each of them then. Reading is thread-safe."""

    def __init__(self, check: Callable[[Path], None]) -> None:
        self._check = check
        self._files: dict[Path, OpenFile] = {}
        #: descriptors of the same files for direct I/O; None: not supported
        self._uncached: dict[Path, int | None] = {}
        self._lock = Lock()

    def read(self, path: Path, offset: int, elements: int, dtype: str, name: str) -> Tensor:
        """Read ``elements`` values of ``dtype`` at byte ``offset`` into a flat tensor. Raises ``RunError``, with
        ``name``, if the file changed or vanished since planning."""
        import torch

        tensor = torch.empty(elements, dtype=getattr(torch, dtype))
        self.read_into(path, offset, tensor, name)
        return tensor

    def read_into(self, path: Path, offset: int, out: Tensor, name: str, *, cached: bool = True) -> None:
        """Fill ``out`` (contiguous, on the CPU) with the bytes at ``offset``. Raises ``RunError`` as ``read`` does.

        With ``cached=False`` the read bypasses the page cache. Where this is not supported, the file is read through
        the cache, with one warning per file that states the reason.
        """
        assert out.is_contiguous()
        assert out.device.type == "cpu"
        if out.nbytes:
            self._read_bytes(path, offset, out, name, cached)

    def open(self, path: Path) -> OpenFile:
        """Open a file and check it, unless it is open already."""
        with self._lock:
            if path not in self._files:
                try:
                    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                except OSError as exc:
                    raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None
                try:
                    opened = OpenFile(descriptor, _state(descriptor))
                    self._check(path)
                except BaseException:
                    os.close(descriptor)
                    raise
                self._files[path] = opened
            return self._files[path]

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1].descriptor)
        while self._uncached:
            descriptor = self._uncached.popitem()[1]
            if descriptor is not None:
                os.close(descriptor)

    def _read_bytes(self, path: Path, offset: int, out: Tensor, name: str, cached: bool) -> None:
        file = self.open(path)
        descriptor = None if cached else self._open_uncached(path, file)
        address, done = out.data_ptr(), 0
        try:
            while done < out.nbytes:
                count = read_at(file.descriptor, descriptor, offset + done, address + done, out.nbytes - done)
                if count == 0:
                    raise RunError(f"{path} was truncated while in use: tensor {name!r} is incomplete")
                done += count
            if _state(file.descriptor) != file.state:
                raise RunError(f"{path} changed while in use: tensor {name!r} may be damaged")
        except OSError as exc:
            raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None

    def _open_uncached(self, path: Path, file: OpenFile) -> int | None:
        """Open a descriptor of the same file for direct I/O; ``None`` where it is not supported."""
        with self._lock:
            if path not in self._uncached:
                try:
                    descriptor = open_uncached(path)
                except OSError as exc:
                    raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None
                if descriptor is not None and _identity(descriptor) != _identity(file.descriptor):
                    os.close(descriptor)
                    raise RunError(f"{path} changed while in use: it was replaced by another file")
                self._uncached[path] = descriptor
            return self._uncached[path]

    def __del__(self) -> None:
        self.close()


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
