"""A weight loader for ``.npz`` archives as written by ``numpy.savez``, read without numpy.

A zip archive of ``.npy`` members, each a header followed by the bytes of one array
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). numpy stores bfloat16 as ``V2``. Arrays of
Python objects are pickles and rejected, like everything else that is not a numeric array.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lightx2v_core.api import DTYPE_BYTES, CheckpointError, Header, RunError, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "<f8": "float64", "<f4": "float32", "<f2": "float16", "<V2": "bfloat16", "|V2": "bfloat16", "<i8": "int64",
    "<i4": "int32", "<i2": "int16", "|i1": "int8", "|u1": "uint8", "|b1": "bool",
}  # fmt: skip
_MAGIC = re.compile(rb"\x93NUMPY[\x01-\x03]\x00")
#: numpy writes the keys in this order and with this spacing
_HEAD = re.compile(r"\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\),? *\}\s*")
_LARGEST_HEAD = 1 << 16


def read_header(path: Path) -> Header:
    """Read the header of an archive. Raises ``CheckpointError`` if it is damaged or contains anything but tensors."""
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    dtype, shape, _ = _read_head(file)
                    size = file.tell() + prod(shape) * DTYPE_BYTES[dtype]
                if not member.filename.endswith(".npy") or size != member.file_size:
                    raise ValueError(f"{member.filename!r} is not an array, or has the wrong size")
                name = member.filename.removesuffix(".npy")
                tensors[name] = TensorInfo(name=name, shape=shape, dtype=dtype, file=path)
    except _FAILURES as exc:
        raise CheckpointError(f"{path} is not an .npz archive of tensors, or is damaged: {exc}") from None
    return Header(tensors=tensors)


class ArchiveSource:
    """A ``WeightSource`` for one or several archives that reads members on demand."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._open: dict[Path, zipfile.ZipFile] = {}

    def names(self) -> Sequence[str]:
        """List the names of all tensors, in the order of the archives."""
        return list(self._header.tensors)

    def info(self, name: str) -> TensorInfo:
        """Return shape, dtype and file of a tensor. Raises ``KeyError`` for an unknown name."""
        return self._header.tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read a tensor in its stored dtype. Raises ``RunError`` if the archive changed or disappeared."""
        import torch

        info = self.info(name)
        with self._member(info) as file:
            dtype, shape, transposed = _read_head(file)
            data = bytearray(file.read())
        if (dtype, shape) != (info.dtype, info.shape):
            raise RunError(f"{info.file} changed during use: {name!r} has another dtype or shape")
        if not data:
            return torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        tensor = torch.frombuffer(data, dtype=getattr(torch, dtype))
        if transposed:  # Fortran order: the first axis varies fastest
            tensor = tensor.reshape(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)).contiguous()
        return tensor.reshape(shape).to(device)

    def close(self) -> None:
        """Close the archives; the next read reopens them."""
        while self._open:
            self._open.popitem()[1].close()

    @contextmanager
    def _member(self, info: TensorInfo) -> Iterator[IO[bytes]]:
        try:
            if info.file not in self._open:
                self._open[info.file] = zipfile.ZipFile(info.file)
            with self._open[info.file].open(f"{info.name}.npy") as file:
                yield file
        except _FAILURES as exc:
            raise RunError(f"{info.file}: {info.name!r} cannot be read: {exc}") from None


#: exceptions caused by damaged archives and by files that are not archives
_FAILURES = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _read_head(file: IO[bytes]) -> tuple[str, tuple[int, ...], bool]:
    """Read dtype, shape, and whether the first axis varies fastest. Raises ``ValueError`` for an invalid header."""
    magic = file.read(8)
    if not _MAGIC.fullmatch(magic):
        raise ValueError("a member is not an array")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    if length > _LARGEST_HEAD:
        raise ValueError("the header of an array is too long")
    head = _HEAD.fullmatch(file.read(length).decode("latin1"))
    if head is None or head[1] not in DTYPES:
        raise ValueError(
            f"an array of {head[1]!r} is not a tensor" if head else "the header of an array is damaged"
        )
    shape = tuple(int(side) for side in head[3].split(",") if side.strip())
    return DTYPES[head[1]], shape, head[2] == "True"
