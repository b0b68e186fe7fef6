"""safetensors: 8 bytes of header length (little endian), a JSON header, then the bytes of all tensors.

Format: https://github.com/huggingface/safetensors#format. The header is read without torch, and checked against
the size of the file, so a truncated or foreign file is found before anything is loaded. Tensors are read by
positioned reads straight into their memory: every byte once, and nothing stays mapped that could vanish.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightx2v_core.api import DTYPE_BYTES, CheckpointError, Header, RunError, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64",
}  # fmt: skip
_MAX_HEADER = 100_000_000  # the limit of the reference implementation


def read_header(path: Path) -> Header:
    """The tensors of one file. ``CheckpointError`` when it is no complete safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length < 2 or length > _MAX_HEADER:
                raise CheckpointError(
                    f"{path} is not a safetensors file: it does not start with a header length"
                )
            if 8 + length > size:
                raise CheckpointError(
                    f"{path} is truncated: its header takes {length} bytes and the file has only {size}; "
                    "copy or download it again"
                )
            data = json.loads(file.read(length), object_pairs_hook=_unique)
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from None
    except ValueError as exc:  # also what json and utf-8 decoding raise
        raise CheckpointError(
            f"{path} is not a safetensors file or is damaged: its header is no JSON ({exc})"
        ) from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is no JSON object")
    metadata = data.pop("__metadata__", None) or {}
    start = 8 + length
    tensors = {name: _tensor(path, name, entry, start, size) for name, entry in data.items()}
    end = max(
        (info.offset + info.nbytes for info in tensors.values() if info.offset is not None), default=start
    )
    if end != size:
        raise CheckpointError(f"{path} is damaged: {size - end} bytes follow its last tensor")
    return Header(tensors=tensors, metadata={str(key): str(value) for key, value in metadata.items()})


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> TensorInfo:
    try:
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        fits = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} is damaged: the header entry of {name!r} is {entry!r}") from None
    info = TensorInfo(name=name, shape=shape, dtype=dtype, file=path, offset=start + begin) if fits else None
    if info is None or info.nbytes != end - begin:
        raise CheckpointError(
            f"{path} is damaged: the header entry of {name!r} contradicts itself: {entry!r}"
        )
    if start + end > size:
        raise CheckpointError(
            f"{path} is truncated: {name!r} ends at byte {start + end} and the file has only {size}; "
            "copy or download it again"
        )
    return info


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


class SafetensorsSource:
    """``WeightSource`` over the tensors of a header, which may lie in several files."""

    def __init__(self, header: Header) -> None:
        self._tensors = header.tensors
        self._files: dict[Path, int] = {}

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        return self._tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """The tensor on ``device``. ``RunError`` when its file changed or vanished since it was planned."""
        import torch

        info = self._tensors[name]
        tensor = torch.empty(info.shape, dtype=getattr(torch, info.dtype))
        if info.nbytes:
            buffer = (ctypes.c_char * info.nbytes).from_address(tensor.data_ptr())
            self._read_into(info, memoryview(buffer).cast("B"))
        return tensor if device == "cpu" else tensor.to(device)

    def _read_into(self, info: TensorInfo, buffer: memoryview) -> None:
        assert info.offset is not None
        try:
            if info.file not in self._files:
                self._files[info.file] = os.open(info.file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            done = 0
            while done < len(buffer):
                count = os.preadv(self._files[info.file], [buffer[done : done + _CHUNK]], info.offset + done)
                if count == 0:
                    raise RunError(f"{info.file} became shorter while it was read: {info.name!r} is cut off")
                done += count
        except OSError as exc:
            raise RunError(f"{info.file} cannot be read: {exc.strerror or exc}") from None

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        self.close()


_CHUNK = 1 << 28  # one read call takes at most 2 GiB on Linux

assert set(_DTYPES.values()) <= set(DTYPE_BYTES)
