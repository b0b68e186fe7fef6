"""LoRA files merged into the weights as these are read: one tensor at a time, in float32.

Quantized weights are taken apart, changed, and quantized again in the format they were in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightx2v_core.api import Adapter, Change, Quantizer, RunError, TensorInfo, WeightSource, changed

if TYPE_CHECKING:
    from torch import Tensor, nn

Steps = Sequence[tuple[Adapter, Change]]
#: dtypes that are numbers by themselves; weights in others are codes
FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


class Merge:
    """Adapters become part of the weights (``LoraApplier``)."""

    def merged(
        self, base: WeightSource, adapters: Sequence[Adapter], *, quantizer: Quantizer | None = None
    ) -> WeightSource:
        steps: dict[str, list[tuple[Adapter, Change]]] = {}
        for adapter in adapters:
            for change in adapter.changes:
                if adapter.strength:
                    steps.setdefault(change.target, []).append((adapter, change))
        return MergedSource(base, steps, quantizer) if steps else base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Nothing is attached."""


class MergedSource:
    """A ``WeightSource`` that reads as another one with changes applied; names, shapes and dtypes stay."""

    def __init__(self, base: WeightSource, steps: Mapping[str, Steps], quantizer: Quantizer | None) -> None:
        self._base = base
        self._steps = steps
        self._quantizer = quantizer
        coded = (name for name in steps if base.info(name).dtype not in FLOATS)
        self._coded = {name.rpartition(".")[0]: name for name in coded}
        #: the quantized layer that was made last: its weight and its scales are read one after the other
        self._last: tuple[tuple[str, str], Mapping[str, Tensor]] | None = None

    def names(self) -> Sequence[str]:
        return self._base.names()

    def info(self, name: str) -> TensorInfo:
        return self._base.info(name)

    def read(self, name: str, device: str = "cpu") -> Tensor:
        layer, _, suffix = name.rpartition(".")
        if layer in self._coded and suffix in (made := self._requantized(layer, device)):
            return made[suffix]
        tensor = self._base.read(name, device)
        if name not in self._steps:
            return tensor
        return changed(tensor, self._steps[name]).to(tensor.dtype)

    def _requantized(self, layer: str, device: str) -> Mapping[str, Tensor]:
        """The tensors, by suffix, that store the changed weight of a quantized layer in the format it was in."""
        if self._last is not None and self._last[0] == (layer, device):
            return self._last[1]
        weight = self._coded[layer]
        stored = {
            name.rpartition(".")[2]: self._base.read(name, device)
            for name in self._base.names()
            if name.rpartition(".")[0] == layer and not name.endswith(".bias")
        }
        assert self._quantizer is not None
        result = changed(self._quantizer.dequantize(stored), self._steps[weight])
        made = {}
        for suffix, tensor in self._quantizer.quantize(result).items():
            before = stored.get(suffix)
            if before is None or before.numel() != tensor.numel():
                raise RunError(
                    f"{layer} is not stored in the format that its quantizer writes: {suffix} differs"
                )
            made[suffix] = tensor.reshape(before.shape).to(before.dtype)
        self._last = ((layer, device), made)
        return made

    def direct(self, name: str) -> bool:
        """What no adapter changes is read as the base reads it."""
        base: Any = self._base
        changes = name in self._steps or name.rpartition(".")[0] in self._coded
        return not changes and hasattr(base, "direct") and base.direct(name)

    def read_into(self, name: str, out: Tensor) -> None:
        """Into ``out``, of the stored shape and dtype, where ``direct`` says so."""
        base: Any = self._base
        base.read_into(name, out)

    def close(self) -> None:
        self._base.close()
