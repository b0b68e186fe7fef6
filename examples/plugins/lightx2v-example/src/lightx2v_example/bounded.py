"""A LoRA applier: adapters become part of the weights, and none of them may change a tensor more than a limit.

Several LoRA files at full strength can add up to more than the network can bear. With a limit the change of a tensor,
all adapters together, has at most that part of the tensor's norm; its direction stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightx2v_core.api import Adapter, Change, TensorInfo, WeightSource, changed
from torch import Tensor, nn

Steps = Sequence[tuple[Adapter, Change]]


class BoundedMerge:
    """A ``LoraApplier``."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """``base`` with the adapters added, tensor by tensor as it is read."""
        steps: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in adapters:
            for change in adapter.changes if adapter.strength else ():
                steps.setdefault(change.target, []).append((adapter, change))
        return BoundedSource(base, steps, self._limit) if steps else base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Everything is in the weights; nothing is attached."""


class BoundedSource:
    """A ``WeightSource`` around another one; names, shapes and dtypes stay."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps], limit: float | None) -> None:
        self._base, self._steps, self._limit = base, steps, limit

    def names(self) -> Sequence[str]:
        """Those of the base."""
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        """As the base says."""
        return self._base.info(name)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """The tensor with what the adapters add, computed in float32."""
        tensor = self._base.read(name, device)
        if name not in self._steps:
            return tensor
        after = changed(tensor, self._steps[name])
        if self._limit is not None:
            before = tensor.float()
            added = after - before
            part = added.norm() / (self._limit * before.norm()).clamp(min=1e-12)
            after = before + added / part.clamp(min=1.0)
        return after.to(tensor.dtype)

    def close(self) -> None:
        """Close the base."""
        self._base.close()
