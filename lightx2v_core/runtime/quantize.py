"""Replacement of plain linears by the layers of a quantizer, and the sources that read their weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import field, frozen
from torch import nn

from lightx2v_core.checkpoint.quantized import DequantizedSource, QuantizedSource, quantized_layer
from lightx2v_core.errors import RequestError
from lightx2v_core.plan.quantization import Quantization
from lightx2v_core.spec.protocols import Quantizer, WeightSource
from lightx2v_core.spec.tensors import LayerFormat


@frozen(kw_only=True)
class LinearReplacement:
    """The weight sources of a module with quantized layers: files -> ``plain`` -> adapters -> ``stored``."""

    #: None: no layer is quantized
    quantizer: Quantizer | None = None
    #: layers that run in their stored format
    kept: Mapping[str, LayerFormat] = field(factory=dict)
    #: stored layers that are read as plain weights
    decoded: Mapping[str, LayerFormat] = field(factory=dict)
    #: plain layers that are quantized on read
    made: Mapping[str, LayerFormat] = field(factory=dict)

    def plain(self, source: WeightSource, changed: Collection[str] = ()) -> WeightSource:
        """Return a source that reads the ``changed`` layers as plain weights, so that adapters can be added."""
        layers = {**self.decoded, **self._again(changed)}
        if self.quantizer is None or not layers:
            return source
        return DequantizedSource(source, layers, self.quantizer.dequantize)

    def stored(self, source: WeightSource, changed: Collection[str] | None = None) -> WeightSource:
        """Return the source that fills the module: on top of a ``plain`` source if ``changed`` is given, else of the
        files."""
        if self.quantizer is None:
            return source
        if changed is None:
            source = self.plain(source)
        layers = {**self.made, **self._again(changed or ())}
        return QuantizedSource(source, layers, self.quantizer.quantize) if layers else source

    def _again(self, changed: Collection[str]) -> dict[str, LayerFormat]:
        """Select the quantized layers to decode and re-quantize. Raises ``RequestError`` if the quantizer cannot
        produce their format."""
        layers = {name: self.kept[name] for name in changed if name in self.kept}
        for layer in layers.values():
            assert self.quantizer is not None
            if not _can_make(layer, self.quantizer):
                raise RequestError(
                    f"{layer.weight.file.name}: {layer.weight.name} is {layer.format}, which cannot be re-quantized "
                    "after merging a LoRA; use --set lora_applier=dynamic"
                )
        return layers


def replace_linears(
    module: nn.Module, source: WeightSource, quantized: Quantization, quantizer: Quantizer
) -> LinearReplacement:
    """Replace the linears of ``module``, on the meta device, that ``quantized`` assigns to ``quantizer``."""
    linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    kept = {name: layer for name, layer in quantized.kept.items() if name in linears}
    decoded = {**quantized.decoded, **{n: layer for n, layer in quantized.kept.items() if n not in linears}}
    made = {
        name: quantized_layer(name, quantized.target, source.info(f"{name}.weight"), quantizer.quantize)
        for name in quantized.made
        if name in linears
    }
    for name, layer in {**kept, **made}.items():
        parent, _, key = name.rpartition(".")
        setattr(module.get_submodule(parent), key, quantizer.linear(linears[name], layer))
    return LinearReplacement(quantizer=quantizer, kept=kept, decoded=decoded, made=made)


def _can_make(layer: LayerFormat, quantizer: Quantizer) -> bool:
    import torch

    try:
        quantizer.quantize(torch.empty(layer.shape, device="meta"), layer.format)
    except ValueError:
        return False
    return True
