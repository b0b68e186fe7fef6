"""Reading single numbers from weight files without torch: the alphas of a LoRA, which a plan shows.

Requires a file format whose header has the offset of each tensor; values in other files are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from lightx2v_core.spec.tensors import TensorInfo

_FORMATS = {
    "float64": "<d", "float32": "<f", "float16": "<e", "int64": "<q", "int32": "<i", "int16": "<h", "int8": "<b",
    "uint8": "<B",
}  # fmt: skip


def read_scalars(infos: Iterable[TensorInfo]) -> dict[str, float]:
    """Read the tensors with one element: tensor name -> value. Unreadable tensors are left out; reading them as weights
    later reports the error."""
    by_file: dict[Path, list[TensorInfo]] = {}
    for info in infos:
        if info.elements == 1 and info.offset is not None:
            by_file.setdefault(info.file, []).append(info)
    scalars = {}
    for path, members in by_file.items():
        try:
            with path.open("rb") as file:
                for info in members:
                    assert info.offset is not None
                    file.seek(info.offset)
                    scalars[info.name] = _number(file.read(info.nbytes), info.dtype)
        except (OSError, struct.error):
            continue
    return {name: value for name, value in scalars.items() if value is not None}


def _number(data: bytes, dtype: str) -> float | None:
    if dtype == "bfloat16":
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    if dtype not in _FORMATS:
        return None
    return float(struct.unpack(_FORMATS[dtype], data)[0])
