"""Sources over other sources: what they change is computed for each reading, the rest is read as before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeGuard

from lightx2v_core.spec.protocols import DirectSource, WeightSource
from lightx2v_core.spec.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def is_direct(source: WeightSource) -> TypeGuard[DirectSource]:
    """Tell whether a source can read into memory that is already there."""
    return hasattr(source, "direct") and hasattr(source, "read_into")


class DerivedSource:
    """A ``DirectSource`` that reads as ``base``, but for the tensors called ``computed``.

    A class derived from it reads these in ``read``, and says in ``info`` where their shape or dtype is another one.
    """

    def __init__(self, base: WeightSource, computed: Collection[str]) -> None:
        self._base, self._computed = base, computed

    def names(self) -> Sequence[str]:
        """List the names of ``base``."""
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        """Describe a tensor of ``base``. ``KeyError`` for an unknown name."""
        return self._base.info(name)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read a tensor of ``base`` in its stored dtype, onto ``device``."""
        return self._base.read(name, device)

    def direct(self, name: str) -> bool:
        """Tell whether ``read_into`` only reads: what is computed has to be computed again for each reading."""
        base = self._base
        return name not in self._computed and is_direct(base) and base.direct(name)

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read a tensor into ``out``, of the stored shape and dtype, where ``direct`` says so."""
        assert is_direct(self._base)
        self._base.read_into(name, out, cached=cached)

    def close(self) -> None:
        """Release the files of ``base``."""
        self._base.close()
