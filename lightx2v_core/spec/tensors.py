"""Descriptions of stored tensors before they are read. No torch here: planning reads headers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen

T = TypeVar("T")

#: bytes per element of every dtype name that a header can contain (torch names)
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e8m0fnu": 1, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4,
    "uint16": 2, "uint8": 1, "bool": 1, "complex64": 8,
}  # fmt: skip


@frozen(kw_only=True)
class TensorInfo:
    """A tensor in a file: shape, dtype and position."""

    name: str
    #: logical shape, of the decoded values
    shape: tuple[int, ...]
    #: torch name; for values packed in blocks the name of the format, such as ``gguf-q8_0``
    dtype: str
    file: Path
    #: offset of its first byte in the file; None if only the loader knows it
    offset: int | None = None
    #: (values, bytes) of a block if values are packed in blocks, consecutively and across rows. Such a tensor is read
    #: as uint8 [blocks, bytes of a block]
    block: tuple[int, int] | None = None

    @property
    def elements(self) -> int:
        """Return the number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the stored size in bytes."""
        return prod(self.stored_shape) * DTYPE_BYTES[self.stored_dtype]

    @property
    def stored_dtype(self) -> str:
        """Return the dtype that the tensor is read in, as a torch name."""
        return self.dtype if self.block is None else "uint8"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Return the shape that the tensor is read in."""
        return self.shape if self.block is None else (self.elements // self.block[0], self.block[1])


@frozen(kw_only=True)
class LayerFormat:
    """The storage format of a layer whose weight is not in a plain float dtype."""

    #: layer name, such as ``blocks.0.ffn.0``; the full name of a tensor that is not the weight of a layer
    name: str
    #: name of the format, such as ``fp8-channel``; see ``checkpoint/formats.py``
    format: str
    #: suffix -> tensor: ``weight``, ``bias``, ``weight_scale``, ...; ``""`` is the tensor ``name`` itself
    tensors: Mapping[str, TensorInfo]
    #: shape of the decoded weight, [out, in]
    shape: tuple[int, ...]
    #: whether the file requires multiplication in full precision
    weight_only: bool = False

    @property
    def weight(self) -> TensorInfo:
        """Return the stored weight."""
        return self.tensors["weight"] if "weight" in self.tensors else self.tensors[""]

    @property
    def nbytes(self) -> int:
        """Return the stored size of the layer in bytes, scales and bias included."""
        return sum(info.nbytes for info in self.tensors.values())


@frozen(kw_only=True)
class Header:
    """The headers of one or several weight files."""

    #: name -> tensor
    tensors: Mapping[str, TensorInfo]
    #: file metadata
    metadata: Mapping[str, str] = field(factory=dict)
    _known: dict[object, Any] = field(factory=dict, init=False, eq=False, repr=False)

    def once(self, key: object, work: Callable[[], T]) -> T:
        """Return ``work()``, called once per ``key`` and cached, since headers are immutable.

        A plan derives the same facts for every component of every model.
        """
        if key not in self._known:
            self._known[key] = work()
        result: T = self._known[key]
        return result

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        return self.once("shapes", lambda: {name: info.shape for name, info in self.tensors.items()})

    @property
    def parameters(self) -> int:
        """Return the number of stored values."""
        return self.once("parameters", lambda: sum(info.elements for info in self.tensors.values()))

    @property
    def nbytes(self) -> int:
        """Return the stored size of all tensors in bytes."""
        return self.once("nbytes", lambda: sum(info.nbytes for info in self.tensors.values()))

    @property
    def largest(self) -> int:
        """Return the size of the largest tensor in bytes."""
        return self.once("largest", lambda: max((info.nbytes for info in self.tensors.values()), default=0))

    @property
    def precision(self) -> str:
        """Return the dtype of most of the bytes, such as ``"bfloat16"``; ``"empty"`` without tensors."""
        return self.once("precision", self._precision)

    def _precision(self) -> str:
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        return max(sizes, key=lambda name: sizes[name]) if sizes else "empty"

    def summary(self) -> dict[str, object]:
        """Return the counts shown in plans and records."""
        return {
            "tensors": len(self.tensors),
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "precision": self.precision,
        }
