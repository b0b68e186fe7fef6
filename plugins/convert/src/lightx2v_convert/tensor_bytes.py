"""The bytes of a tensor, some megabytes at a time: copied, cast or computed. Values must be finite."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping

import torch
from attrs import evolve
from torch import Tensor

from lightx2v_convert.output_files import OutputTensor
from lightx2v_core.api import CheckpointError, TensorInfo, WeightSource

#: elements of a tensor that are copied or cast at a time
_ELEMENTS = 1 << 23
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SMALL = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


def tensor_bytes(
    tensor: OutputTensor, source: WeightSource, copied: Mapping[str, TensorInfo], device: str
) -> Iterator[memoryview]:
    """Yield the bytes of ``tensor``, some megabytes at a time.

    ``copied`` are the tensors whose bytes are copied from their file. Raises ``CheckpointError`` for values that are
    not finite.
    """
    dtype: torch.dtype = getattr(torch, tensor.dtype)
    if tensor.source is None:
        held = torch.zeros(tensor.shape).to(dtype)
        yield _bytes(held)
    elif tensor.source in copied:
        for part in _from_file(_rows(copied[tensor.source], tensor.rows)):
            held = _cast(part, dtype, tensor.source)
            yield _bytes(held)
    else:
        read = source.read(tensor.source, device)
        flat = (read if tensor.rows is None else read[slice(*tensor.rows)]).reshape(-1)
        for part in torch.split(flat, _ELEMENTS):
            held = _cast(part, dtype, tensor.source).cpu()
            yield _bytes(held)


def _cast(part: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    if part.dtype not in _FLOATS:
        return part.to(dtype)
    result = part if dtype not in _SMALL else part.float().clamp(-_SMALL[dtype], _SMALL[dtype])
    result = result.to(dtype)
    if not bool(torch.isfinite(part).all()):
        raise CheckpointError(f"{name} has values that are not finite; the source is damaged")
    if dtype in _FLOATS and dtype != part.dtype and not bool(torch.isfinite(result).all()):
        raise CheckpointError(f"{name} has values that are too large for {dtype}; choose another --dtype")
    return result


def _rows(info: TensorInfo, rows: tuple[int, int] | None) -> TensorInfo:
    """Select some rows of a tensor in a file."""
    if rows is None or info.offset is None:
        return info
    row = info.nbytes // info.shape[0]
    return evolve(info, shape=(rows[1] - rows[0], *info.shape[1:]), offset=info.offset + rows[0] * row)


def _from_file(info: TensorInfo) -> Iterator[Tensor]:
    dtype = getattr(torch, info.dtype)
    assert info.offset is not None
    with info.file.open("rb") as file:
        file.seek(info.offset)
        left = info.elements
        while left:
            part = torch.empty(min(left, _ELEMENTS), dtype=dtype)
            if file.readinto(_bytes(part)) != part.nbytes:
                raise CheckpointError(f"{info.file} was truncated while reading: {info.name!r} is incomplete")
            left -= part.numel()
            yield part


def _bytes(tensor: Tensor) -> memoryview:
    """Return a view of the memory of a contiguous tensor, which must outlive the view."""
    assert tensor.is_contiguous()
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
