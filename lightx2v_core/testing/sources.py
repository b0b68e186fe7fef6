"""Weights in memory in place of files, for tests of code that reads, moves, changes or quantizes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.spec.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


class MemorySource:
    """A ``WeightSource`` of given tensors that can also read into existing memory (``DirectSource``).

    ``tensors`` may be changed during use, as when LoRA files are switched. ``read_names`` records the names of tensors
    read, in order. Reading a tensor in ``failing`` raises the exception given there.
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
        """Do nothing: no file is open."""
