"""Puts the layers of a quantizer in the place of plain linears, and says how their weights are read."""

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
    """How the weights of a module with quantized layers are read: files -> ``plain`` -> adapters -> ``stored``."""

    #: None: no layer is quantized
    quantizer: Quantizer | None = None
    #: layers that run as they are stored
    kept: Mapping[str, LayerFormat] = field(factory=dict)
    #: stored layers that read as plain weights
    decoded: Mapping[str, LayerFormat] = field(factory=dict)
    #: plain layers that are quantized when they are read
    made: Mapping[str, LayerFormat] = field(factory=dict)

    def plain(self, source: WeightSource, changed: Collection[str] = ()) -> WeightSource:
        """A source whose ``changed`` layers read as plain weights, so that something can be added to them."""
        layers = {**self.decoded, **self._again(changed)}
        if self.quantizer is None or not layers:
            return source
        return DequantizedSource(source, layers, self.quantizer.dequantize)

    def stored(self, source: WeightSource, changed: Collection[str] | None = None) -> WeightSource:
        """What the module is filled from: of a ``plain`` source if layers were ``changed``, else of the files."""
        if self.quantizer is None:
            return source
        if changed is None:
            source = self.plain(source)
        layers = {**self.made, **self._again(changed or ())}
        return QuantizedSource(source, layers, self.quantizer.quantize) if layers else source

    def _again(self, changed: Collection[str]) -> dict[str, LayerFormat]:
        """Quantized layers that are decoded and quantized again. ``RequestError`` when that cannot be done."""
        layers = {name: self.kept[name] for name in changed if name in self.kept}
        for layer in layers.values():
            assert self.quantizer is not None
            if not _can_make(layer, self.quantizer):
                raise RequestError(
                    f"{layer.weight.file.name} holds {layer.weight.name} in {layer.format}, which cannot be quantized "
                    "again once a LoRA is merged into it; use --set lora_applier=dynamic"
                )
        return layers


def replace_linears(
    module: nn.Module, source: WeightSource, quantized: Quantization, quantizer: Quantizer
) -> LinearReplacement:
    """Let ``quantizer`` take over the linears it is to run; ``module`` lies on the meta device."""
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
