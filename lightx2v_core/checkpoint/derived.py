"""Weight sources on top of other sources: changed tensors are computed on each read, others pass through."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeGuard

from lightx2v_core.spec.protocols import DirectSource, WeightSource
from lightx2v_core.spec.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def is_direct(source: WeightSource) -> TypeGuard[DirectSource]:
    """Return whether a source can read into preallocated memory."""
    return hasattr(source, "direct") and hasattr(source, "read_into")


class DerivedSource:
    """A ``DirectSource`` that delegates to ``base``, except for the tensors named in ``computed``.

    Subclasses compute these in ``read``, and override ``info`` where their shape or dtype differs.
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
        """Return whether ``read_into`` can read the tensor; a computed tensor is recomputed on each ``read``."""
        base = self._base
        return name not in self._computed and is_direct(base) and base.direct(name)

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read a tensor for which ``direct`` is true into ``out``, which has the stored shape and dtype."""
        assert is_direct(self._base)
        self._base.read_into(name, out, cached=cached)

    def close(self) -> None:
        """Release the files of ``base``."""
        self._base.close()
