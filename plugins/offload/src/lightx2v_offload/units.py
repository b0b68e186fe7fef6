"""Units of transfer: the tensors of a block, or of a part of a block, in one contiguous buffer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from lightx2v_core.api import ModuleTensor, ModuleWeights

#: bytes; GPUs load vectors of 16 bytes and more, and copy cache lines of 128
ALIGNMENT = 256
#: children of a block that are smaller than this fraction of it stay with the component
_SMALL = 1 / 16
#: the smallest tensors of a unit, up to this fraction of it in total, stay as well: a disk takes nearly as long for a
#: bias as for a megabyte
_TINY = 1 / 256


class Unit:
    """Tensors of a module that share one buffer and are bound to the module together."""

    def __init__(self, name: str, tensors: Sequence[ModuleTensor], *, common: bool = False) -> None:
        self.name = name
        #: whether every call of the component uses it
        self.common = common
        self.tensors = tuple(tensors)
        self.offsets: list[int] = []
        self.nbytes = 0
        for tensor in self.tensors:
            self.offsets.append(self.nbytes)
            self.nbytes += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self._absent = [_slots(tensor)[tensor.key] for tensor in self.tensors]
        self._present: dict[int, list[Tensor]] = {}

    def holds(self, names: Collection[str]) -> bool:
        """Return whether the unit has any of the tensors ``names``."""
        return any(tensor.name in names for tensor in self.tensors)

    def view(self, index: int, memory: Tensor) -> Tensor:
        """Return a view of ``memory`` as tensor number ``index``."""
        tensor, start = self.tensors[index], self.offsets[index]
        with torch.inference_mode(False):
            flat = memory[start : start + tensor.nbytes].view(tensor.dtype)
            return flat.view(tensor.shape)

    def bind(self, memory: Tensor) -> None:
        """Point the module's tensors into ``memory``, whose contents may still be in transfer."""
        address = memory.data_ptr()
        if address not in self._present:
            with torch.inference_mode(False):
                self._present[address] = [
                    nn.Parameter(self.view(index, memory), requires_grad=False)
                    if tensor.parameter
                    else self.view(index, memory)
                    for index, tensor in enumerate(self.tensors)
                ]
        for tensor, value in zip(self.tensors, self._present[address], strict=True):
            _slots(tensor)[tensor.key] = value

    def unbind(self) -> None:
        """Restore the placeholder tensors: a call raises an error in torch and never computes with stale weights."""
        for tensor, value in zip(self.tensors, self._absent, strict=True):
            _slots(tensor)[tensor.key] = value

    def forget(self) -> None:
        """Release all memory that the unit was bound to."""
        self.unbind()
        self._present.clear()

    def __repr__(self) -> str:
        return f"Unit({self.name})"


def _slots(tensor: ModuleTensor) -> dict[str, Tensor | None]:
    owner = tensor.owner
    return owner._parameters if tensor.parameter else owner._buffers  # type: ignore[return-value]


def divide(
    module: nn.Module, weights: ModuleWeights, blocks: Sequence[str], granularity: str
) -> tuple[Unit, dict[str, Unit]]:
    """Split a component into the tensors used in every call and its units, by module prefix, in running order."""
    units: dict[str, Unit] = {}
    if granularity == "phase":
        prefixes = [part for block in blocks for part in _phases(module, weights, block)]
    else:
        prefixes = list(blocks)
    for prefix in prefixes:
        units[prefix] = Unit(prefix, _large_tensors(weights.tensors(prefix)))
    moving = {tensor.name for unit in units.values() for tensor in unit.tensors}
    rest = [tensor for tensor in weights.tensors("") if tensor.name not in moving]
    return Unit("the rest", rest, common=True), units


def _large_tensors(tensors: Sequence[ModuleTensor]) -> list[ModuleTensor]:
    """Drop the smallest tensors, such as biases and norms, which stay on the device."""
    room = sum(tensor.nbytes for tensor in tensors) * _TINY
    staying = set()
    for tensor in sorted(tensors, key=lambda tensor: tensor.nbytes):
        room -= tensor.nbytes
        if room < 0:
            break
        staying.add(tensor.name)
    return [tensor for tensor in tensors if tensor.name not in staying]


def _phases(module: nn.Module, weights: ModuleWeights, block: str) -> list[str]:
    """List the larger children of a block. The others, norms and modulation, stay with the component."""
    sizes = {
        f"{block}.{name}": sum(tensor.nbytes for tensor in weights.tensors(f"{block}.{name}"))
        for name, _ in module.get_submodule(block).named_children()
    }
    whole = sum(tensor.nbytes for tensor in weights.tensors(block))
    return [name for name, size in sizes.items() if size > whole * _SMALL]
