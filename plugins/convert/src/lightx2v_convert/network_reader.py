"""A network in its output form: read by official names, dequantized, with LoRA files merged, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

from attrs import evolve
from torch import Tensor

from lightx2v_convert.merging import open_adapters
from lightx2v_convert.model_folder import NetworkConversion
from lightx2v_convert.network import Network
from lightx2v_convert.options import ConvertOptions
from lightx2v_convert.output_files import OutputTensor
from lightx2v_convert.tensor_bytes import tensor_bytes
from lightx2v_core.api import (
    LayerFormat,
    RequestError,
    TensorInfo,
    WeightSource,
    quantize_weight,
    suggestion,
)
from lightx2v_core.weights import (
    SCALED_FP8_MARKER,
    WEIGHT_FORMATS,
    Checkpoints,
    DequantizedSource,
    MappedSource,
    QuantizedSource,
    WidenedSource,
    layer_formats,
    quantizable_layers,
    quantized_layer,
    weight_error,
)


class NetworkReader:
    """A reader of a network in its output form, tensor by tensor. ``opened`` closes its files."""

    def __init__(self, conversion: NetworkConversion, checkpoints: Checkpoints, opened: ExitStack) -> None:
        network, options = conversion.network, conversion.options
        #: layer -> quantization errors, measured while reading
        self.report: dict[str, Any] = {}
        base = checkpoints.open(network.stored)
        opened.callback(base.close)
        source: WeightSource = MappedSource(base, network.mapped) if network.mapped.renamed else base
        formats = layer_formats(network.header)
        self._drop, self._device, self._title = options.drop, options.device, conversion.title
        adapters, changed = open_adapters(conversion.loras, checkpoints, opened)
        changed_formats = {name: layer for name, layer in formats.items() if name in changed}
        decoded = dict(formats) if options.quantize is not None else changed_formats
        decoded = {name: layer for name, layer in decoded.items() if not layer.format.endswith("-plain")}
        if decoded:
            source = DequantizedSource(source, decoded, _dequantize_with(decoded, checkpoints))
        #: layer -> format that it is quantized to when read
        self.quantized = _quantized_layers(source, network, options, changed_formats)
        touched = {change.target for adapter in adapters for change in adapter.changes}
        if adapters:
            # tensors that are cast or quantized later are not first rounded to the dtype of their file
            rounded = (
                set()
                if options.dtype or options.full
                else touched - {f"{name}.weight" for name in self.quantized}
            )
            source = checkpoints.merged(WidenedSource(source, touched - rounded), adapters)
        if self.quantized:
            measure = self._measure if options.report else None
            source = QuantizedSource(source, self.quantized, quantize_weight, measure)
        self._source = source
        #: tensors whose bytes are copied from their file unchanged
        self._copied = {
            name: info
            for name, info in network.header.tensors.items()
            if info.offset is not None
            and info.file.suffix == ".safetensors"
            and network.mapped.stored[name] == (info.name,)
            and name not in touched
            and name.rpartition(".")[0] not in {**self.quantized, **decoded}
        }

    def tensors(self) -> dict[str, TensorInfo]:
        """List the tensors to write, by official name."""
        return {
            name: self._source.info(name)
            for name in self._source.names()
            if name.rpartition(".")[2] != SCALED_FP8_MARKER
            and not any(fnmatchcase(name, pattern) for pattern in self._drop)
        }

    def read(self, tensor: OutputTensor) -> Iterator[memoryview]:
        """Yield the bytes of a tensor, some megabytes at a time."""
        return tensor_bytes(tensor, self._source, self._copied, self._device)

    def _measure(self, layer: LayerFormat, plain: Tensor, stored: Mapping[str, Tensor]) -> None:
        relative, largest = weight_error(plain, stored, layer.format)
        self.report[f"{self._title}{layer.name}"] = {"relative_rmse": relative, "max_error": largest}


def _quantized_layers(
    source: WeightSource, network: Network, options: ConvertOptions, changed: Mapping[str, LayerFormat]
) -> dict[str, LayerFormat]:
    """Determine the layers to quantize when read, and their formats. ``changed`` are the stored formats of layers that
    LoRA files change."""
    if options.full or options.quantize == "none":
        return {}
    format = options.format
    if format is None:  # layers changed by an adapter return to their format
        if unknown := [layer for layer in changed.values() if layer.format not in WEIGHT_FORMATS]:
            raise RequestError(
                f"{unknown[0].weight.file.name} has {unknown[0].weight.name} in {unknown[0].format}, which cannot be "
                "re-quantized after merging a LoRA; choose a target format with --quantize"
            )
        return {
            name: quantized_layer(
                name, layer.format.removesuffix("-static"), source.info(f"{name}.weight"), quantize_weight
            )
            for name, layer in changed.items()
            if "weight" in layer.tensors
        }
    if format not in WEIGHT_FORMATS or format.endswith(("-plain", "-static")):
        known = sorted(name for name in WEIGHT_FORMATS if not name.endswith(("-plain", "-static")))
        raise RequestError(
            f"unsupported format {format!r}{suggestion(format, known)}; supported formats: {', '.join(known)}"
        )
    header = evolve(network.header, tensors={name: source.info(name) for name in source.names()})
    layers = [name for name in quantizable_layers(network.spec, header) if options.takes(name)]
    if not layers:
        raise RequestError(
            f"the {network.spec.summary} has no quantizable layers, or --only and --keep exclude all of them"
        )
    return {
        name: quantized_layer(name, format, source.info(f"{name}.weight"), quantize_weight) for name in layers
    }


def _dequantize_with(
    layers: Mapping[str, LayerFormat], checkpoints: Checkpoints
) -> Callable[[Mapping[str, Tensor], LayerFormat], Tensor]:
    """Return a function that dequantizes these layers, with the core or an exact quantizer.

    Raises ``RequestError`` for a format that none of them supports.
    """
    dequantizers: dict[str, Callable[[Mapping[str, Tensor], LayerFormat], Tensor]] = {}
    for layer in layers.values():
        if layer.format in dequantizers:
            continue
        decode = checkpoints.dequantizer(layer.format)
        if decode is None:
            raise RequestError(
                f"{layer.weight.file.name} has {layer.weight.name} in {layer.format}, which no installed plugin can "
                "dequantize; without --quantize and --lora it can still be split and renamed"
            )
        dequantizers[layer.format] = decode
    return lambda tensors, layer: dequantizers[layer.format](tensors, layer)
