"""A LoRA applier that merges adapters into the weights and limits the change of each tensor.

Several LoRA files at full strength can add up to a change that degrades the network. With a limit, the norm of the
total change of a tensor is at most that fraction of the tensor's norm; its direction is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightx2v_core.api import Adapter, Change, TensorInfo, WeightSource, changed
from torch import Tensor, nn

Steps = Sequence[tuple[Adapter, Change]]


class BoundedMerge:
    """A ``LoraApplier`` with a limit relative to the norm of each tensor; None: no limit."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return a source that adds the adapters to each tensor of ``base`` when it is read."""
        steps: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in adapters:
            for change in adapter.changes if adapter.strength else ():
                steps.setdefault(change.target, []).append((adapter, change))
        return BoundedSource(base, steps, self._limit) if steps else base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Do nothing: the weights are merged."""


class BoundedSource:
    """A ``WeightSource`` that changes another one; names, shapes and dtypes stay the same."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps], limit: float | None) -> None:
        self._base, self._steps, self._limit = base, steps, limit

    def names(self) -> Sequence[str]:
        """List the names of the base."""
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        """Return shape, dtype and file as the base does."""
        return self._base.info(name)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read a tensor with the adapters added in float32, in the dtype of the base."""
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
