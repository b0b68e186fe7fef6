"""Scratch files of computed weights: merged, cast or joined once, then read in every pass.

The format is safetensors (https://github.com/huggingface/safetensors#format), so a kept file can be used like any
other. A file that is not kept has no name: nothing remains on disk, even after a crash.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from lightx2v_core.api import ModuleTensor, ModuleWeights, RunError, open_uncached, read_at

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_CHUNK = 1 << 28
_PREFIX = "lightx2v-scratch-"
#: seconds that a partial file is exempt from removal
_NEW = 60.0


class Scratch:
    """The computed tensors of one component."""

    def __init__(
        self,
        tensors: Sequence[ModuleTensor],
        weights: ModuleWeights,
        folder: str | None,
        keep: str,
        *,
        cached: bool,
    ) -> None:
        """Compute each of ``tensors`` and write it to the file.

        ``keep`` is the name of a file to keep, or empty. Without ``cached`` the file is read with direct I/O. Raises
        ``RunError`` when the disk is too full: the file's size is reserved before the first tensor is computed.
        """
        self.folder = Path(folder or tempfile.gettempdir())
        self._offsets: dict[str, int] = {}
        head = self._header(tensors)
        self.nbytes = len(head) + sum(tensor.nbytes for tensor in tensors)
        self._file = -1
        #: the same file, opened for direct I/O
        self._uncached: int | None = None
        self.path = self.folder / keep if keep else None
        try:
            _sweep(self.folder)
            self._file, name = tempfile.mkstemp(".part", _PREFIX, self.folder)
            with suppress(OSError):  # held while the file is open: marks it as in use by a live process
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if not cached:
                    self._uncached = open_uncached(Path(name))
                if not keep:
                    os.unlink(name)
                self._reserve()
                self._write(0, memoryview(head))
                for tensor in tensors:
                    out = torch.empty(tensor.shape, dtype=tensor.dtype)
                    weights.read_into(tensor.name, out)
                    self._write(self._offsets[tensor.name], _bytes(out))
                if self.path is not None:
                    os.replace(name, self.path)
            except BaseException:
                self.close()
                if keep:
                    os.unlink(name)
                raise
        except OSError as exc:
            raise RunError(
                f"cannot write the scratch file of {self.nbytes / 1e9:.2f} GB for computed weights in {self.folder}: "
                f"{exc.strerror or exc}; set the offloader's option scratch to a folder with more room"
            ) from None

    def read_into(self, name: str, out: Tensor) -> None:
        """Read the tensor ``name`` into ``out``. Raises ``RunError`` when the file cannot be read."""
        offset, address, done = self._offsets[name], out.data_ptr(), 0
        try:
            while done < out.nbytes:
                count = read_at(self._file, self._uncached, offset + done, address + done, out.nbytes - done)
                if count == 0:
                    raise RunError(f"the scratch file in {self.folder} was truncated while in use")
                done += count
        except OSError as exc:
            raise RunError(f"cannot read the scratch file in {self.folder}: {exc.strerror or exc}") from None

    def close(self) -> None:
        """Close the file, which deletes it unless it is kept."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._uncached is not None:
            os.close(self._uncached)
            self._uncached = None

    def _header(self, tensors: Sequence[ModuleTensor]) -> bytes:
        entries, at = {}, 0
        for tensor in tensors:
            entries[tensor.name] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [at, at + tensor.nbytes],
            }
            self._offsets[tensor.name] = at
            at += tensor.nbytes
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._offsets = {name: offset + 8 + len(text) for name, offset in self._offsets.items()}
        return len(text).to_bytes(8, "little") + text

    def _reserve(self) -> None:
        """Allocate the space on disk now, where the file system supports it."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file, 0, self.nbytes)
            except OSError as exc:
                if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise

    def _write(self, offset: int, data: memoryview) -> None:
        while len(data):
            count = os.pwrite(self._file, data[:_CHUNK], offset)
            data, offset = data[count:], offset + count


def _sweep(folder: Path) -> None:
    """Remove partial files of kept scratch files whose processes were killed."""
    for path in folder.glob(f"{_PREFIX}*.part"):
        with suppress(OSError):  # another user's, in use or already removed
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                about = os.fstat(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # its process may not have locked a new file yet
                if about.st_uid == os.geteuid() and time.time() - about.st_mtime > _NEW:
                    os.unlink(path)
            finally:
                os.close(file)


def _bytes(tensor: Tensor) -> memoryview:
    """View the memory of a contiguous tensor as bytes."""
    if not tensor.nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
