"""Weights in memory where files would be: for tests of what reads, moves, changes or quantizes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.spec.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


class MemorySource:
    """A ``WeightSource`` of given tensors, which can be read straight into memory (``DirectSource``).

    ``tensors`` may be changed while it is used: that is what switching LoRA files does. ``read_names`` holds what was
    read, in order. A tensor named in ``failing`` raises that exception.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, file: str = "memory.safetensors") -> None:
        self.tensors = dict(tensors)
        self.failing: dict[str, Exception] = {}
        self.read_names: list[str] = []
        self._file = Path(file)

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        tensor = self.tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return TensorInfo(name=name, shape=tuple(tensor.shape), dtype=dtype, file=self._file)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        tensor = self.tensors[name]
        self.read_names.append(name)
        if name in self.failing:
            raise self.failing[name]
        return tensor.to(device, copy=True)

    def direct(self, name: str) -> bool:
        return bool(self.info(name))

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        out.copy_(self.read(name))

    def close(self) -> None:
        """Nothing is open."""
