"""The options of a conversion."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from attrs import asdict, frozen

from lightx2v_core.api import RequestError
from lightx2v_core.weights import LoraConfig

Layout = Literal["official", "comfyui", "diffusers", "transformers"]
Split = Literal["single", "blocks", "shards"]

#: short name -> format
FORMATS = {"int8": "int8-channel", "fp8": "fp8-channel"}


@frozen(kw_only=True)
class ConvertOptions:
    """The options of a conversion."""

    #: format of the quantized layers, ``none`` for plain weights; None: as in the source
    quantize: str | None = None
    #: dtype of all other float tensors; None: as in the source
    dtype: str | None = None
    #: tensor names of the output
    layout: Layout = "official"
    #: one file, one file per block, or shards
    split: Split = "single"
    #: largest size of a shard, in bytes
    shard_bytes: int = 5_000_000_000
    #: tensors per shard; replaces ``shard_bytes``
    shard_tensors: int | None = None
    #: patterns of layers to leave unquantized
    keep: tuple[str, ...] = ()
    #: patterns of the only layers to quantize; empty: all
    only: tuple[str, ...] = ()
    #: patterns of tensors to omit
    drop: tuple[str, ...] = ()
    #: store every float tensor in fp8 without scales
    full: bool = False
    #: LoRA files to merge, in this order
    loras: tuple[LoraConfig, ...] = ()
    #: reject LoRA files with tensors that have no effect
    strict_lora: bool = False
    #: component to convert, if a folder has several
    component: str | None = None
    #: torch device for quantization
    device: str = "cpu"
    #: measure the error of each quantized layer
    report: bool = False

    @property
    def format(self) -> str | None:
        """Return the format of quantized layers; short names: one scale per tensor for ComfyUI, else per channel."""
        if self.quantize in (None, "none"):
            return None
        if self.layout == "comfyui" and self.quantize in FORMATS:
            return f"{self.quantize}-tensor"
        return FORMATS.get(str(self.quantize), str(self.quantize))

    def takes(self, layer: str) -> bool:
        """Return whether ``only`` and ``keep`` allow a layer to be quantized."""
        wanted = not self.only or any(fnmatchcase(layer, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(layer, pattern) for pattern in self.keep)

    def settings(self) -> dict[str, Any]:
        """Return the options that affect the result, for its metadata."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("device", "component", "report", "strict_lora") and value
        }


def check(options: ConvertOptions) -> None:
    """Raise ``RequestError`` for options that contradict each other."""
    if options.layout == "comfyui" and options.format is not None and "-channel" in options.format:
        raise RequestError(f"ComfyUI's layout has one scale per tensor, which {options.format} does not")
    if options.full and options.quantize != "fp8":
        raise RequestError("--full stores every tensor in fp8 without a scale; use it with --quantize fp8")
    if options.full and (options.keep or options.only):
        raise RequestError("--full applies to every tensor; omit --keep and --only")
    if (options.keep or options.only) and options.format is None:
        raise RequestError("--keep and --only select layers to quantize; use them with --quantize")
