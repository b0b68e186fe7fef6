"""An offloader: weights are kept in host memory, and a block is copied to the device for the duration of its call.

Weights outside the blocks are on the device while the component is in use. Possible improvements: pinned memory, a
second CUDA stream that copies the next block during compute, blocks that stay on the device if they fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from lightx2v_core.api import ModuleTensor, ModuleWeights
from torch import Tensor, nn


class Part:
    """Tensors of a module that move together. They stay in host memory; the device gets copies."""

    def __init__(self, tensors: Sequence[ModuleTensor]) -> None:
        self._held = [(tensor, _get(tensor)) for tensor in tensors]

    def to_device(self, device: str) -> None:
        """Replace the tensors of the module by copies on ``device``."""
        for tensor, held in self._held:
            _set(tensor, held.to(device, non_blocking=True))

    def to_host(self) -> None:
        """Release the copies."""
        for tensor, held in self._held:
            _set(tensor, held)


class HostStore:
    """An ``Offloader`` that keeps all weights in host memory."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._modules: dict[str, nn.Module] = {}
        self._weights: dict[str, ModuleWeights] = {}
        #: component -> the weights outside its blocks, then each block
        self._parts: dict[str, list[Part]] = {}
        self._uses: Counter[str] = Counter()

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        """Read everything into host memory and add hooks to the blocks."""
        weights.fill("", "cpu")
        inside = {block: weights.tensors(block) for block in blocks}
        names = {tensor.name for tensors in inside.values() for tensor in tensors}
        rest = [tensor for tensor in weights.tensors("") if tensor.name not in names]
        self._modules[component], self._weights[component] = module, weights
        self._parts[component] = [Part(rest)]
        for block, tensors in inside.items():
            part = Part(tensors)
            self._parts[component].append(part)
            self._watch(module.get_submodule(block), part)

    def _watch(self, block: nn.Module, part: Part) -> None:
        def before(_block: nn.Module, _inputs: object) -> None:
            part.to_device(self._device)

        def after(_block: nn.Module, _inputs: object, _output: object) -> None:
            part.to_host()

        block.register_forward_pre_hook(before)
        block.register_forward_hook(after, always_call=True)  # also if the block fails

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        """Keep the weights outside the blocks on the device during a use."""
        self._uses[component] += 1
        this, rest = self._uses[component], self._parts[component][0]
        rest.to_device(self._device)
        try:
            yield
        finally:
            # an abandoned use may end during a later one
            if self._uses[component] == this and component in self._parts:
                rest.to_host()

    def prepare(self, component: str) -> None:
        """Ignore the hint: nothing is prefetched."""

    def refresh(self, component: str, names: Collection[str]) -> None:
        """Read the changed tensors again."""
        for part in self._parts[component]:
            part.to_host()
        # tensors already on the host keep their memory, so the parts see the new values
        self._weights[component].refill(names, "cpu")

    def close(self) -> None:
        """Release all memory."""
        for module in self._modules.values():
            module.to("meta")
        for held in (self._modules, self._weights, self._parts):
            held.clear()


def _get(tensor: ModuleTensor) -> Tensor:
    owner = tensor.owner
    value = owner._parameters[tensor.key] if tensor.parameter else owner._buffers[tensor.key]
    assert value is not None
    return value


def _set(tensor: ModuleTensor, value: Tensor) -> None:
    if not tensor.parameter:
        tensor.owner._buffers[tensor.key] = value
    elif isinstance(value, nn.Parameter):
        tensor.owner._parameters[tensor.key] = value
    else:
        tensor.owner._parameters[tensor.key] = nn.Parameter(value, requires_grad=False)
