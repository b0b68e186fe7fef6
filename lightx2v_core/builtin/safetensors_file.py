"""safetensors files: 8 bytes of header length (little endian), a JSON header, then the bytes of all tensors.

Format: https://github.com/huggingface/safetensors#format. The header is read without torch and checked against the
file size, so that truncated or foreign files are detected before anything is loaded. Tensors are read directly into
their memory with positioned reads: every byte once, and no file mappings that could become invalid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lightx2v_core.api import DTYPE_BYTES, CheckpointError, Header, PositionedSource, TensorInfo

_DTYPES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64",
}  # fmt: skip
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
_MAX_AXES = 64  # torch's limit
#: brackets, braces and commas in a header, enough for a million tensors; Python's lists would need gigabytes for more
_MAX_TOKENS = 10_000_000
_MAX_NUMBER = 1 << 48  # real sizes are smaller; torch overflows above 2 ** 63
_LFS_POINTER = b"version "


def read_header(path: Path) -> Header:
    """Read the header of one file. Raises ``CheckpointError`` unless it is a complete safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if first == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a git-lfs pointer and not the file itself; fetch it with: git lfs pull"
                )
            if size < 8 or length < 2 or length > _MAX_HEADER:
                raise CheckpointError(
                    f"{path} is not a safetensors file: it does not start with a header length"
                )
            if 8 + length > size:
                raise CheckpointError(
                    f"{path} is truncated: its header is {length} bytes long, but the file has only {size}; "
                    "copy or download it again"
                )
            # decoded here because json would also accept utf-16 and utf-32
            text = file.read(length)
            if sum(map(text.count, (b"[", b"{", b","))) > _MAX_TOKENS:
                raise CheckpointError(
                    f"{path} was rejected: its header has more entries than a million tensors need"
                )
            data = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from None
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(
            f"{path} is not a safetensors file or is damaged: its header is not valid JSON ({exc})"
        ) from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not a JSON object")
    metadata = data.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} is damaged: the metadata in its header is not an object of strings")
    start = 8 + length
    tensors = {name: _tensor(path, name, entry, start, size) for name, entry in data.items()}
    _check_gapless(path, tensors, start, size)
    return Header(tensors=tensors, metadata=metadata)


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> TensorInfo:
    try:
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        begin, end = entry["data_offsets"]
        fits = (
            isinstance(shape, list)
            and len(shape) <= _MAX_AXES
            and all(type(n) is int and 0 <= n <= _MAX_NUMBER for n in (*shape, begin, end))
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or prod(shape) * DTYPE_BYTES[dtype] != end - begin:
        raise CheckpointError(f"{path} is damaged: invalid header entry for {_short(name)}: {_short(entry)}")
    if start + end > size:
        raise CheckpointError(
            f"{path} is truncated: {name!r} ends at byte {start + end}, but the file has only {size}; "
            "copy or download it again"
        )
    return TensorInfo(name=name, shape=tuple(shape), dtype=dtype, file=path, offset=start + begin)


def _check_gapless(path: Path, tensors: Mapping[str, TensorInfo], start: int, size: int) -> None:
    """Reject files with gaps or overlaps between tensors: they were not written completely by one writer."""
    at = start
    for begin, end, name in sorted(_span(info) for info in tensors.values()):
        if begin != at:
            what = (
                "overlaps the tensor before it"
                if begin < at
                else f"follows {begin - at} bytes that belong to no tensor"
            )
            raise CheckpointError(f"{path} is damaged: {name!r} {what}")
        at = end
    if at != size:
        raise CheckpointError(f"{path} is damaged: {size - at} bytes follow its last tensor")


def _span(info: TensorInfo) -> tuple[int, int, str]:
    assert info.offset is not None
    return info.offset, info.offset + info.nbytes, info.name


def _short(entry: object) -> str:
    text = repr(entry)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    for name in entries:
        name.encode()  # half of a surrogate pair can be neither printed nor stored
    return entries


class SafetensorsSource(PositionedSource):
    """A ``WeightSource`` for safetensors files."""

    def __init__(self, header: Header) -> None:
        super().__init__(header, read_header)


assert set(_DTYPES.values()) <= set(DTYPE_BYTES)
