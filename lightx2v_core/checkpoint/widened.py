"""A source that reads some tensors in float32, so that a sum with them is not rounded to the dtype of the file."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from attrs import evolve

from lightx2v_core.checkpoint.derived import DerivedSource
from lightx2v_core.spec.protocols import WeightSource
from lightx2v_core.spec.tensors import DTYPE_BYTES, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


class WidenedSource(DerivedSource):
    """A ``WeightSource`` that reads the tensors in ``names`` as float32 if they are stored as narrower floats."""

    def __init__(self, base: WeightSource, names: Collection[str]) -> None:
        there = set(base.names())
        super().__init__(base, {name for name in names if name in there and _is_narrow(base.info(name))})

    def info(self, name: str) -> TensorInfo:
        info = self._base.info(name)
        return evolve(info, dtype="float32", offset=None) if name in self._computed else info

    def read(self, name: str, device: str = "cpu") -> Tensor:
        tensor = self._base.read(name, device)
        return tensor.float() if name in self._computed else tensor


def _is_narrow(info: TensorInfo) -> bool:
    """Return whether a tensor has a float dtype of under 32 bits; packed blocks are decoded elsewhere."""
    return info.block is None and "float" in info.dtype and DTYPE_BYTES[info.dtype] < 4
