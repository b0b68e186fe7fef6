"""Headers of GGUF files, read with the standard library only and checked against the file size.

A file consists of ``GGUF``, the version, the number of tensors and the number of metadata entries; the entries; name,
shape (fastest axis first), type and offset of each tensor; then, at a multiple of the alignment, the data. All values
are little-endian. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

Files support at most four axes, so tools flatten tensors with more axes, or with rows that do not divide into blocks,
and record the shape in the metadata, as ``comfy.gguf.orig_shape.<tensor>``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from lightx2v_core.api import CheckpointError, Header, TensorInfo
from lightx2v_gguf.types import BLOCKS, PACKED, PLAIN, type_name

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LFS_POINTER = b"version https://git-lfs"
#: sanity limits that only damaged files exceed; names in bytes, sides in elements
_MAX_ENTRIES, _MAX_TENSORS, _MAX_AXES, _MAX_NAME, _MAX_SIDE = 1 << 20, 1 << 20, 8, 1 << 16, 1 << 48
#: depth of nested arrays
_MAX_DEPTH = 8
#: strings or arrays in one array; vocabularies have some hundred thousand
_MAX_ITEMS = 1 << 24
#: bytes; longer strings of the metadata are skipped
_MAX_TEXT = 1 << 16
_NUMBERS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_WHOLE = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_SHAPE = "comfy.gguf.orig_shape."
#: value of a metadata entry that is not kept
_SKIPPED = object()


class _FormatError(ValueError):
    """The bytes are not a valid GGUF header."""


def read_header(path: Path) -> Header:
    """Read the header of one file.

    Raises ``CheckpointError`` when the file is not a complete GGUF file or has tensors of unsupported types.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a git-lfs pointer and not the file itself; fetch it with: git lfs pull"
                )
            file.seek(0)
            return _header(path, _Reader(file, size), size)
    except OSError as exc:
        raise CheckpointError(f"cannot read {path}: {exc.strerror or exc}") from None
    except _FormatError as exc:
        raise CheckpointError(f"{path} is not a GGUF file or is damaged: {exc}") from None


class _Reader:
    """Sequential reader that checks every length against the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def bytes(self, count: int) -> bytes:
        data = self._file.read(count) if count <= self._left else b""
        if len(data) != count:
            raise _FormatError(f"it ends where {count} more bytes are expected; copy or download it again")
        self._left -= count
        return data

    def skip(self, count: int) -> None:
        if count > self._left:
            raise _FormatError(f"it ends where {count} more bytes are expected; copy or download it again")
        self._file.seek(count, 1)
        self._left -= count

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def count(self, most: int, what: str) -> int:
        value: int = self.number("<Q")
        if value > most:
            raise _FormatError(f"{what} is {value}, above the limit of {most}")
        return value

    def text(self, most: int, what: str) -> str:
        try:
            return self.bytes(self.count(most, f"the length of {what}")).decode("utf-8")
        except UnicodeDecodeError:
            raise _FormatError(f"{what} is not UTF-8") from None

    @property
    def left(self) -> int:
        return self._left


def _header(path: Path, reader: _Reader, size: int) -> Header:
    if reader.bytes(min(size, len(_MAGIC))) != _MAGIC:
        raise _FormatError("it does not start with GGUF")
    version = reader.number("<I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        found = "big-endian" if swapped in _VERSIONS else f"version {version}"
        raise CheckpointError(f"{path} is a {found} GGUF file; supported are versions 2 and 3, little-endian")
    tensor_count = reader.count(_MAX_TENSORS, "the number of tensors")
    metadata = _metadata(reader, reader.count(_MAX_ENTRIES, "the number of metadata entries"))
    if isinstance(parts := metadata.get("split.count"), int) and parts > 1:
        raise CheckpointError(
            f"{path} is one of {parts} parts of a split file; join them with llama.cpp: llama-gguf-split --merge"
        )
    entries = [_entry(reader) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _FormatError(f"alignment {alignment!r} is not a power of two up to {1 << 20}")
    data = -(-(size - reader.left) // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise _FormatError(f"duplicate tensor {name!r}")
        if offset % alignment:
            raise _FormatError(f"offset {offset} of {name!r} is not a multiple of {alignment}")
        tensors[name] = _tensor(path, name, _unflattened_shape(metadata, name, shape), kind, data + offset)
    _check_places(tensors, size)
    texts = {key: str(value) for key, value in metadata.items() if not isinstance(value, tuple)}
    return Header(tensors=tensors, metadata=texts)


def _metadata(reader: _Reader, count: int) -> dict[str, Any]:
    """Read the strings, numbers and tensor shapes of the metadata; skip other arrays and long strings."""
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text(_MAX_NAME, "a metadata key")
        kind = reader.number("<I")
        value = _value(reader, kind, key.startswith(_SHAPE), 0)
        if key in metadata:
            raise _FormatError(f"duplicate metadata key {key!r}")
        if value is not _SKIPPED:
            metadata[key] = value
    return metadata


def _value(reader: _Reader, kind: int, wanted: bool, depth: int) -> Any:
    if kind in _NUMBERS:
        return reader.number(_NUMBERS[kind])
    if kind == _TEXT:
        length = reader.count(reader.left, "the length of a string")
        if length > _MAX_TEXT:
            reader.skip(length)
            return _SKIPPED
        return reader.bytes(length).decode("utf-8", "replace")
    if kind != _ARRAY:
        raise _FormatError(f"unknown type {kind} of a metadata entry")
    inner, length = reader.number("<I"), reader.count(reader.left, "the length of an array")
    if wanted:
        if inner not in _WHOLE or length > _MAX_AXES:
            raise _FormatError(f"the metadata has an invalid tensor shape: {length} values of type {inner}")
        return tuple(reader.number(_NUMBERS[inner]) for _ in range(length))
    if inner in (_TEXT, _ARRAY) and length > _MAX_ITEMS:
        raise _FormatError(f"the length of an array is {length}, above the limit of {_MAX_ITEMS}")
    if inner in _NUMBERS:
        reader.skip(length * struct.calcsize(_NUMBERS[inner]))
    elif inner == _TEXT:
        for _ in range(length):
            reader.skip(reader.count(reader.left, "the length of a string"))
    elif inner == _ARRAY and depth < _MAX_DEPTH:
        for _ in range(length):
            _value(reader, inner, False, depth + 1)
    else:
        raise _FormatError(f"unknown or too deeply nested array type {inner} in the metadata")
    return _SKIPPED


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Read the name, shape, type and offset of a tensor."""
    name = reader.text(_MAX_NAME, "a tensor name")
    axes = reader.number("<I")
    if axes > _MAX_AXES:
        raise _FormatError(f"{name!r} has {axes} axes, above the limit of {_MAX_AXES}")
    shape = tuple(reader.count(_MAX_SIDE, f"a side of {name!r}") for _ in range(axes))
    return name, shape[::-1], reader.number("<I"), reader.number("<Q")


def _unflattened_shape(metadata: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a tensor before it was flattened, as recorded in the metadata."""
    stated = metadata.get(_SHAPE + name)
    if stated is None:
        return shape
    if not isinstance(stated, tuple) or any(side < 0 for side in stated) or prod(stated) != prod(shape):
        raise _FormatError(f"{name!r} has shape {list(shape)}, but the metadata record {stated!r}")
    return stated


def _tensor(path: Path, name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
    if kind in PLAIN:
        return TensorInfo(name=name, shape=shape, dtype=PLAIN[kind], file=path, offset=offset)
    if kind not in PACKED:
        known = ", ".join(sorted(format.removeprefix("gguf-").upper() for format in BLOCKS))
        raise CheckpointError(
            f"{path}: unsupported type {type_name(kind)} of {name!r}; supported are {known}, F32, F16 and BF16"
        )
    format, block = PACKED[kind]
    if prod(shape) % block[0]:
        raise _FormatError(
            f"{name!r} {list(shape)} in {type_name(kind)} does not divide into blocks of {block[0]}"
        )
    return TensorInfo(name=name, shape=shape, dtype=format, file=path, offset=offset, block=block)


def _check_places(tensors: Mapping[str, TensorInfo], size: int) -> None:
    """Ensure that all tensors are inside the file and do not overlap."""
    place: Callable[[TensorInfo], int] = lambda info: info.offset or 0  # noqa: E731
    end, before = 0, ""
    for info in sorted(tensors.values(), key=place):
        if place(info) + info.nbytes > size:
            raise _FormatError(
                f"{info.name!r} ends at byte {place(info) + info.nbytes} of a file of {size} bytes; copy or "
                "download it again"
            )
        if info.nbytes and place(info) < end:
            raise _FormatError(f"{info.name!r} overlaps {before!r}")
        if info.nbytes:
            end, before = place(info) + info.nbytes, info.name
