"""Serialization of tensors to safetensors files, without numpy, which the core does not depend on.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.checkpoint.staging import staging, unwritten

if TYPE_CHECKING:
    from torch import Tensor

#: torch's names of dtypes -> those of the format
SAFETENSORS_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "uint64": "U64", "uint32": "U32", "uint16": "U16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def serialize_safetensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Yield a safetensors file in pieces: its header, then each tensor, which is moved to the CPU only then.

    Raises ``KeyError`` for a dtype that the format does not have.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype = SAFETENSORS_DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    yield len(text).to_bytes(8, "little") + text
    for tensor in tensors.values():
        tensor = tensor.detach().cpu().contiguous()
        size = tensor.numel() * tensor.element_size()
        yield bytes((ctypes.c_char * size).from_address(tensor.data_ptr()))


def write_atomically(path: Path, pieces: Iterable[bytes], named: Callable[[], None] = lambda: None) -> None:
    """Write a file from pieces. It appears under its name when it is complete, and ``named`` is called then. Raises
    ``OutputError`` if it cannot be written; nothing is left behind."""
    with staging(named) as files, unwritten(path), files.file(path) as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
