"""What is known of a stored tensor before it is read. No torch here: planning looks at headers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen

T = TypeVar("T")

#: bytes per element of every dtype name that a header can hold (torch's names)
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e8m0fnu": 1, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4,
    "uint16": 2, "uint8": 1, "bool": 1, "complex64": 8,
}  # fmt: skip


@frozen(kw_only=True)
class TensorInfo:
    """A tensor in a file: shape, dtype, and where its bytes are."""

    name: str
    #: of its values
    shape: tuple[int, ...]
    #: torch's name; for values that are packed in blocks the name of their format, such as ``gguf-q8_0``
    dtype: str
    file: Path
    #: first byte in the file, or None when only the loader knows
    offset: int | None = None
    #: values and bytes of a block, for values that are packed together: in their order, whatever the shape. Such a
    #: tensor is read as uint8 [blocks, bytes of a block]
    block: tuple[int, int] | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return prod(self.stored_shape) * DTYPE_BYTES[self.stored_dtype]

    @property
    def stored_dtype(self) -> str:
        """Torch's name of the dtype that the tensor is read in."""
        return self.dtype if self.block is None else "uint8"

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that the tensor is read in."""
        return self.shape if self.block is None else (self.elements // self.block[0], self.block[1])


@frozen(kw_only=True)
class LayerFormat:
    """How the weight of one layer is stored, when it is not in a plain float dtype."""

    #: such as ``blocks.0.ffn.0``; the full name for a tensor that is no layer's weight
    name: str
    #: such as ``fp8-channel``, see ``checkpoint/formats.py``
    format: str
    #: the layer's tensors by suffix: ``weight``, ``bias``, ``weight_scale``, ...; ``""`` is the tensor ``name`` itself
    tensors: Mapping[str, TensorInfo]
    #: shape of the weight when it is decoded
    shape: tuple[int, ...]
    #: the file asks for a multiplication in full precision
    weight_only: bool = False

    @property
    def weight(self) -> TensorInfo:
        return self.tensors["weight"] if "weight" in self.tensors else self.tensors[""]

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.tensors.values())


@frozen(kw_only=True)
class Header:
    """Everything the head of one or several weight files says: tensors by name, and file metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(factory=dict)
    _known: dict[object, Any] = field(factory=dict, init=False, eq=False, repr=False)

    def once(self, key: object, work: Callable[[], T]) -> T:
        """Return what ``work`` finds out about this header, which never changes: it is done for the first who asks for
        ``key``, since a plan asks the same for every component of every model."""
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
        return self.once("shapes", lambda: {name: info.shape for name, info in self.tensors.items()})

    @property
    def parameters(self) -> int:
        """Number of stored elements."""
        return self.once("parameters", lambda: sum(info.elements for info in self.tensors.values()))

    @property
    def nbytes(self) -> int:
        return self.once("nbytes", lambda: sum(info.nbytes for info in self.tensors.values()))

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return self.once("largest", lambda: max((info.nbytes for info in self.tensors.values()), default=0))

    @property
    def precision(self) -> str:
        """The dtype most of the bytes are in, such as ``"bfloat16"``."""
        return self.once("precision", self._precision)

    def _precision(self) -> str:
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        return max(sizes, key=lambda name: sizes[name]) if sizes else "empty"

    def summary(self) -> dict[str, object]:
        """Return the counts that plans and records show."""
        return {
            "tensors": len(self.tensors),
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "precision": self.precision,
        }
