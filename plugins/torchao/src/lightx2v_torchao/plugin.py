"""Hook implementations. Imported at discovery, so torch and torchao are only imported when a builder is called."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from lightx2v_core.api import BuildContext, QuantizerOptions, QuantizerSpec, hookimpl

if TYPE_CHECKING:
    from lightx2v_core.api import Quantizer

_INT8 = frozenset({"int8-channel", "int8-tensor", "int8-tensor-static"})
_FP8 = frozenset({"fp8-channel", "fp8-tensor", "fp8-tensor-static"})
#: the oldest torchao with the tensor subclasses used here
OLDEST = (0, 18)
#: the CUDA kernels require dimensions of weights that are multiples of this
_MULTIPLE = 16


def _unusable(_ctx: BuildContext) -> Sequence[str]:
    """Check the version of the installed distribution, without importing torchao, which takes seconds."""
    try:
        version = metadata.version("torchao")
    except metadata.PackageNotFoundError:
        return ["torchao is not installed: pip install 'lightx2v-torchao[kernels]'"]
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return [f"torchao {version} is older than {OLDEST[0]}.{OLDEST[1]}"]
    return []


def _unusable_fp8(ctx: BuildContext) -> Sequence[str]:
    reasons = list(_unusable(ctx))
    if ctx.device.kind == "cuda" and ctx.dtype != "bfloat16":
        reasons.append(
            f"torchao's fp8 matmul with per-token scales requires bfloat16; the run computes in {ctx.dtype}"
        )
    return reasons


def _refuses(shape: tuple[int, ...], ctx: BuildContext) -> str | None:
    if ctx.device.kind == "cuda" and any(side % _MULTIPLE for side in shape):
        return f"dimensions {list(shape)} are not multiples of {_MULTIPLE}"
    return None


def _int8(_options: QuantizerOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_torchao.linears import int8_quantizer

    return int8_quantizer()


def _fp8(_options: QuantizerOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_torchao.linears import fp8_quantizer

    return fp8_quantizer()


@hookimpl
def lightx2v_quantizers() -> list[QuantizerSpec[QuantizerOptions]]:
    return [
        QuantizerSpec(
            name="int8-torchao",
            summary="torchao's int8 matmul, int8 activations with per-token scales",
            config=QuantizerOptions,
            formats=_INT8,
            makes=lambda _options: "int8-channel",
            extra="kernels",
            min_capability=(8, 0),
            unusable=_unusable,
            refuses=_refuses,
            build=_int8,
            priority=5,
        ),
        QuantizerSpec(
            name="fp8-torchao",
            summary="torchao's fp8 matmul, fp8 activations with per-token scales",
            config=QuantizerOptions,
            formats=_FP8,
            makes=lambda _options: "fp8-channel",
            extra="kernels",
            min_capability=(8, 9),
            unusable=_unusable_fp8,
            refuses=_refuses,
            build=_fp8,
            priority=5,
        ),
    ]
