"""Hook implementations. Imported at discovery, so torch is only imported when a builder is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from lightx2v_core.api import BuildContext, NoOptions, QuantizerSpec, WeightLoaderSpec, hookimpl
from lightx2v_gguf.types import BLOCKS, WRITTEN

if TYPE_CHECKING:
    from lightx2v_core.api import Header, Quantizer, WeightSource

#: values per block of the formats that can be written
_BLOCK = 32


@frozen(kw_only=True)
class GgufOptions:
    """Options of the ``gguf`` quantizer."""

    #: patterns of layers to leave unquantized
    keep: tuple[str, ...] = ()
    #: patterns of the only layers to quantize; empty: all
    only: tuple[str, ...] = ()
    #: format to pack plain weights in on load; None: they stay plain
    format: Literal["gguf-q8_0", "gguf-q5_1", "gguf-q5_0", "gguf-q4_1", "gguf-q4_0"] | None = None


def _read_header(path: Path) -> Header:
    from lightx2v_gguf.header import read_header

    return read_header(path)


def _source(_config: NoOptions, _ctx: BuildContext) -> Callable[[Header], WeightSource]:
    from lightx2v_core.api import PositionedSource

    return lambda header: PositionedSource(header, _read_header)


def _quantizer(_config: GgufOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_gguf.linear import PackedQuantizer

    return PackedQuantizer()


def _refuses(shape: tuple[int, ...], _ctx: BuildContext) -> str | None:
    if shape[-1] % _BLOCK:
        return f"rows of {shape[-1]} values do not divide into blocks of {_BLOCK}"
    return None


@hookimpl
def lightx2v_weight_loaders() -> list[WeightLoaderSpec[NoOptions]]:
    return [
        WeightLoaderSpec(
            name="gguf",
            summary="GGUF files, read tensor by tensor and kept packed",
            suffixes=(".gguf",),
            read_header=_read_header,
            build=_source,
        )
    ]


@hookimpl
def lightx2v_quantizers() -> list[QuantizerSpec[GgufOptions]]:
    return [
        QuantizerSpec(
            name="gguf",
            summary="weights packed in GGUF blocks, decoded at each use: exact, on any device",
            config=GgufOptions,
            formats=frozenset(BLOCKS),
            makes=lambda options: options.format,
            exact=True,
            writes=frozenset(WRITTEN),
            refuses=_refuses,
            build=_quantizer,
        )
    ]
