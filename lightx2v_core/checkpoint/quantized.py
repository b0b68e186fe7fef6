"""Weight sources that dequantize stored weights, or quantize plain ones, on read, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from lightx2v_core.checkpoint.derived import DerivedSource
from lightx2v_core.errors import RunError
from lightx2v_core.spec.protocols import WeightSource
from lightx2v_core.spec.tensors import LayerFormat, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Dequantize = Callable[[Mapping[str, "Tensor"], LayerFormat], "Tensor"]
Quantize = Callable[["Tensor", str], Mapping[str, "Tensor"]]


class DequantizedSource(DerivedSource):
    """A ``WeightSource`` that reads the given layers as plain weights [out, in] in float32, without their scales.

    ``layers`` are by name, as returned by ``layer_formats``; ``dequantize`` receives the stored tensors of a layer by
    suffix.
    """

    def __init__(self, base: WeightSource, layers: Mapping[str, LayerFormat], dequantize: Dequantize) -> None:
        self._dequantize = dequantize
        self._layers = {_weight_name(layer): layer for layer in layers.values()}
        super().__init__(base, self._layers)
        self._gone = {
            f"{layer.name}.{suffix}"
            for layer in layers.values()
            for suffix in layer.tensors
            if suffix not in ("", "weight", "bias")
        }

    def names(self) -> Sequence[str]:
        return [name for name in self._base.names() if name not in self._gone]

    def info(self, name: str) -> TensorInfo:
        if name in self._gone:
            raise KeyError(name)
        info = self._base.info(name)
        layer = self._layers.get(name)
        return (
            info
            if layer is None
            else evolve(info, shape=layer.shape, dtype="float32", offset=None, block=None)
        )

    def read(self, name: str, device: str = "cpu") -> Tensor:
        layer = self._layers.get(name)
        if layer is None:
            return self._base.read(name, device)
        stored = {
            suffix: self._base.read(f"{layer.name}.{suffix}" if suffix else layer.name, device)
            for suffix in layer.tensors
            if suffix not in ("bias", "comfy_quant")
        }
        return self._dequantize(stored, layer)


class QuantizedSource(DerivedSource):
    """A ``WeightSource`` that quantizes the plain weights of the given layers on read.

    ``layers`` are the target formats by name, see ``quantized_layer``. ``quantize`` converts a weight [out, in] to a
    format and returns tensors by suffix; ``on_quantized`` is called with the layer, its plain weight and these tensors.
    """

    def __init__(
        self,
        base: WeightSource,
        layers: Mapping[str, LayerFormat],
        quantize: Quantize,
        on_quantized: Callable[[LayerFormat, Tensor, Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        self._quantize, self._on_quantized = quantize, on_quantized
        self._made = {
            f"{layer.name}.{suffix}": (layer, suffix)
            for layer in layers.values()
            for suffix in layer.tensors
            if suffix in ("weight", "weight_scale")
        }
        super().__init__(base, self._made)
        #: remaining tensors of the layer read last: callers read its weight, then its scale
        self._ready: dict[tuple[str, str], Tensor] = {}

    def names(self) -> Sequence[str]:
        there = list(self._base.names())
        return [*there, *(set(self._made) - set(there))]

    def info(self, name: str) -> TensorInfo:
        if name not in self._made:
            return self._base.info(name)
        layer, suffix = self._made[name]
        return layer.tensors[suffix]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read a tensor, quantizing its layer if needed. Raises ``RunError`` for a weight that cannot be quantized."""
        if name not in self._made:
            return self._base.read(name, device)
        ready = self._ready.pop((name, device), None)
        if ready is not None:
            return ready
        layer, suffix = self._made[name]
        weight = f"{layer.name}.weight"
        try:
            plain = self._base.read(weight, device)
            tensors = dict(self._quantize(plain, layer.format))
        except ValueError as exc:
            file = self._base.info(weight).file
            raise RunError(f"{weight} in {file} cannot be quantized to {layer.format}: {exc}") from None
        if self._on_quantized is not None:
            self._on_quantized(layer, plain, tensors)
        # a scale may be stored as [out] or as [out, 1]
        tensors = {key: tensor.reshape(layer.tensors[key].stored_shape) for key, tensor in tensors.items()}
        tensor = tensors.pop(suffix)
        # replaced as a whole: of concurrent threads, one keeps its tensors
        self._ready = {(f"{layer.name}.{other}", device): tensor for other, tensor in tensors.items()}
        return tensor

    def close(self) -> None:
        self._ready.clear()
        super().close()


def quantized_layer(name: str, format: str, weight: TensorInfo, quantize: Quantize) -> LayerFormat:
    """Describe a plain ``weight`` [out, in] after quantization to a format: names, shapes and dtypes of its tensors,
    computed on the meta device. Raises ``ValueError`` if ``quantize`` does not support the format."""
    import torch

    quantized = quantize(torch.empty(weight.shape, dtype=getattr(torch, weight.dtype), device="meta"), format)
    tensors = {
        suffix: evolve(
            weight,
            name=f"{name}.{suffix}",
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            offset=None,
            block=None,
        )
        for suffix, tensor in quantized.items()
    }
    return LayerFormat(name=name, format=format, tensors=tensors, shape=weight.shape)


def _weight_name(layer: LayerFormat) -> str:
    return f"{layer.name}.weight" if "weight" in layer.tensors else layer.name
