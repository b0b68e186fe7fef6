"""The options of a conversion."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from attrs import asdict, frozen

from lightx2v_core.api import RequestError
from lightx2v_core.weights import LoraConfig

Layout = Literal["official", "comfyui", "diffusers", "transformers"]
Split = Literal["single", "blocks", "shards"]

#: short names of formats
FORMATS = {"int8": "int8-channel", "fp8": "fp8-channel"}


@frozen(kw_only=True)
class ConvertOptions:
    """What a checkpoint is converted to."""

    #: format of the quantized layers, ``none`` for plain weights; None: as the source has them
    quantize: str | None = None
    #: dtype of everything else that is a float; None: as the source has it
    dtype: str | None = None
    layout: Layout = "official"
    split: Split = "single"
    #: bytes of a shard
    shard_bytes: int = 5_000_000_000
    #: tensors of a shard, in place of its bytes
    shard_tensors: int | None = None
    #: patterns of layers that stay as they are, and of the only ones that are quantized
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    #: patterns of tensors that are left out
    drop: tuple[str, ...] = ()
    #: every float tensor in fp8 without any scale
    full: bool = False
    #: merged one after the other
    loras: tuple[LoraConfig, ...] = ()
    #: refuse one of which a part has no effect
    strict_lora: bool = False
    #: which component of a folder that holds several
    component: str | None = None
    device: str = "cpu"
    #: measure how far each quantized layer is from its source
    report: bool = False

    @property
    def format(self) -> str | None:
        """The format of quantized layers: with one scale for ComfyUI, one a channel else."""
        if self.quantize in (None, "none"):
            return None
        if self.layout == "comfyui" and self.quantize in FORMATS:
            return f"{self.quantize}-tensor"
        return FORMATS.get(str(self.quantize), str(self.quantize))

    def takes(self, layer: str) -> bool:
        """Whether ``only`` and ``keep`` let a layer be quantized."""
        wanted = not self.only or any(fnmatchcase(layer, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(layer, pattern) for pattern in self.keep)

    def settings(self) -> dict[str, Any]:
        """Give the options that the result depends on, for its metadata."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("device", "component", "report", "strict_lora") and value
        }


def check(options: ConvertOptions) -> None:
    """Refuse options that contradict each other, with a ``RequestError``."""
    if options.layout == "comfyui" and options.format is not None and "-channel" in options.format:
        raise RequestError(
            f"ComfyUI's layout has one scale for each tensor, and {options.format} is asked for"
        )
    if options.full and options.quantize != "fp8":
        raise RequestError("--full stores every tensor in fp8 without a scale; use it with --quantize fp8")
    if options.full and (options.keep or options.only):
        raise RequestError("--full takes every tensor; leave out --keep and --only")
    if (options.keep or options.only) and options.format is None:
        raise RequestError("--keep and --only choose layers to quantize; use them with --quantize")
