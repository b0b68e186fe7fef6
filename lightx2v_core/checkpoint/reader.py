"""Reads byte ranges straight into the memory of a tensor: every byte once, and nothing stays mapped."""

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
    """An open file, and what it was when it was opened: size and time of its last change."""

    descriptor: int
    state: tuple[int, int]


class PositionedSource:
    """``WeightSource`` over the tensors of a header, which may lie in several files: each in one piece from its
    ``offset`` on, as it is in memory. ``read_header`` is asked again when a file is opened, since it must not have
    changed."""

    def __init__(self, header: Header, read_header: Callable[[Path], Header]) -> None:
        self._tensors = header.tensors
        self._read_header = read_header
        self._files = OpenFiles(self._check)

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        return self._tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read the tensor onto ``device``. ``RunError`` when its file changed or vanished since it was planned."""
        info = self._tensors[name]
        assert info.offset is not None
        shape = info.stored_shape
        flat = self._files.read(info.file, info.offset, prod(shape), info.stored_dtype, name)
        return flat.view(shape).to(device)

    def direct(self, name: str) -> bool:
        """Say yes: tensors lie in the file as they are in memory."""
        return self._tensors[name].offset is not None

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read into ``out``, of the stored shape and dtype. ``RunError`` as for ``read``; thread-safe."""
        info = self._tensors[name]
        assert info.offset is not None
        self._files.read_into(info.file, info.offset, out, name, cached=cached)

    def close(self) -> None:
        self._files.close()

    def _check(self, path: Path) -> None:
        """Compare a file that was just opened with the one whose header was read. ``RunError`` when it changed."""
        try:
            now = self._read_header(path).tensors
        except CheckpointError as exc:
            raise RunError(f"{path} changed since it was planned: {exc}") from None
        for name, info in self._tensors.items():
            if info.file == path and now.get(name) != info:
                raise RunError(f"{path} changed since it was planned: {name!r} is not where it was")


class OpenFiles:
    """Files that are opened when they are first needed; ``check`` sees each of them then. Reading is thread-safe."""

    def __init__(self, check: Callable[[Path], None]) -> None:
        self._check = check
        self._files: dict[Path, OpenFile] = {}
        #: the same files, for reading past the cache; None: the system refuses that
        self._uncached: dict[Path, int | None] = {}
        self._lock = Lock()

    def read(self, path: Path, offset: int, elements: int, dtype: str, name: str) -> Tensor:
        """``elements`` of ``dtype`` from byte ``offset`` on, as a flat tensor. ``RunError`` names ``name`` when the
        file changed or vanished since it was planned."""
        import torch

        tensor = torch.empty(elements, dtype=getattr(torch, dtype))
        self.read_into(path, offset, tensor, name)
        return tensor

    def read_into(self, path: Path, offset: int, out: Tensor, name: str, *, cached: bool = True) -> None:
        """Fill ``out`` (contiguous, on the CPU) with the bytes from ``offset`` on. Errors as for ``read``.

        Without ``cached`` the system's cache of files is passed by. Where that cannot be, a warning says why, once for
        each file, and it is read as always.
        """
        assert out.is_contiguous()
        assert out.device.type == "cpu"
        if out.nbytes:
            self._read_bytes(path, offset, out, name, cached)

    def open(self, path: Path) -> OpenFile:
        """Open and check a file, unless that was done before."""
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
                    raise RunError(f"{path} became shorter while it was in use: {name!r} is cut off")
                done += count
            if _state(file.descriptor) != file.state:
                raise RunError(f"{path} was changed while it was in use: {name!r} may be damaged")
        except OSError as exc:
            raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None

    def _open_uncached(self, path: Path, file: OpenFile) -> int | None:
        """Open a descriptor of the same file that passes the cache by; none where the system refuses that."""
        with self._lock:
            if path not in self._uncached:
                try:
                    descriptor = open_uncached(path)
                except OSError as exc:
                    raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None
                if descriptor is not None and _identity(descriptor) != _identity(file.descriptor):
                    os.close(descriptor)
                    raise RunError(f"{path} was changed while it was in use: another file took its place")
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
