"""Tables of the quantization scheme names in existing configurations.

A scheme such as ``fp8-sgl`` combines the format of the weights and the kernel for them. These tables separate the two.
The names are those of ``dit_quant_scheme``, ``t5_quant_scheme``, ``clip_quant_scheme`` and
``mm_config.mm_type`` of LightX2V.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from lightx2v_core.discovery import catalog

_FP8 = ("fp8-vllm", "fp8-torch", "dequant")
_INT8 = ("int8-vllm", "int8-torch", "dequant")


@frozen(kw_only=True)
class Scheme:
    """The format and kernels that a scheme name stands for."""

    #: format of the weights, or a prefix of several formats
    format: str
    #: quantizers to try in order; empty: the kernel is not available
    kernels: tuple[str, ...] = ()
    #: missing dependency of an unavailable kernel
    needs: str = ""


def _vendor(format: str, needs: str) -> Scheme:
    return Scheme(format=format, needs=needs)


SCHEMES: Mapping[str, Scheme] = {
    # T5 and CLIP: only the format, with any kernel
    "fp8": Scheme(format="fp8-channel", kernels=_FP8),
    "int8": Scheme(format="int8-channel", kernels=_INT8),
    # LightX2V uses torch._scaled_mm for this format
    "fp8-pertensor": Scheme(format="fp8-tensor", kernels=("fp8-torch",)),
    "fp8-sgl": _vendor("fp8-channel", "the package sgl_kernel"),
    "int8-sgl": _vendor("int8-channel", "the package sgl_kernel"),
    "fp8-q8f": _vendor("fp8-channel", "the package q8_kernels"),
    "int8-q8f": _vendor("int8-channel", "the package q8_kernels"),
    "fp8-triton": _vendor("fp8-channel", "LightX2V's Triton kernels"),
    "int8-triton": _vendor("int8-channel", "LightX2V's Triton kernels"),
    "fp8-b128-deepgemm": _vendor("fp8-block128", "the package deep_gemm"),
    "int8-vllm-hygon-dcu": _vendor("int8-channel", "vLLM for Hygon accelerators"),
    "fp8-musa": _vendor("fp8-channel", "a Moore Threads accelerator"),
    "int8-tmo": _vendor("int8-channel", "the package tmo"),
    "int8-npu": _vendor("int8-channel", "an Ascend accelerator"),
    "int8-iluvatar": _vendor("int8-channel", "an Iluvatar accelerator"),
    "fp8-intel-xpu": _vendor("fp8-channel", "an Intel accelerator"),
    "nvfp4": _vendor("nvfp4", "the package lightx2v_kernel"),
    "mxfp4": _vendor("mxfp4", "the package lightx2v_kernel"),
    "mxfp6-mxfp8": _vendor("mxfp6", "the package lightx2v_kernel"),
    "mxfp8": _vendor("mxfp8", "the package lightx2v_kernel"),
    "int4-g128-marlin": _vendor("int4", "vLLM's Marlin kernels for int4"),
    **{
        f"gguf-{kind}": Scheme(format=f"gguf-{kind.lower().removesuffix('_s').removesuffix('_m')}", kernels=("gguf",))
        for kind in ("Q8_0", "Q6_K", "Q5_K_S", "Q5_K_M", "Q5_0", "Q5_1", "Q4_K_S", "Q4_K_M", "Q4_0", "Q4_1", "Q3_K_S",
                     "Q3_K_M", "Q2_K")
    },
    # unquantized weights in a GGUF file
    "gguf-BF16": Scheme(format="", kernels=("gguf",)),
}  # fmt: skip


def scheme_of(name: str) -> Scheme | None:
    """Return the scheme for a short or long name, or None for any other name."""
    return SCHEMES.get(MM_TYPES.get(name, name))


#: ``mm_config.mm_type`` of earlier configurations -> its scheme
MM_TYPES: Mapping[str, str] = {
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Vllm": "fp8-vllm",
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Vllm-ActSgl": "fp8-vllm",
    "W-int8-channel-sym-A-int8-channel-sym-dynamic-Vllm": "int8-vllm",
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Q8F": "fp8-q8f",
    "W-int8-channel-sym-A-int8-channel-sym-dynamic-Q8F": "int8-q8f",
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Sgl": "fp8-sgl",
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Sgl-ActVllm": "fp8-sgl",
    "W-int8-channel-sym-A-int8-channel-sym-dynamic-Sgl-ActVllm": "int8-sgl",
    "W-int8-channel-sym-A-int8-channel-sym-dynamic-Torchao": "int8-torchao",
    "W-fp8-block128-sym-A-fp8-channel-group128-sym-dynamic-Deepgemm-ActSgl": "fp8-b128-deepgemm",
    "W-fp8-block128-sym-A-fp8-channel-group128-sym-dynamic-Deepgemm": "fp8-b128-deepgemm",
    "W-int4-group128-sym-Marlin": "int4-g128-marlin",
    "W-gguf-Q4_K": "gguf-Q4_K_M",
}

#: all long names of weights with a scale per channel and activations with one per token, for any kernel
_CHANNEL = re.compile(r"W-(fp8|int8)-channel-sym-A-\1-channel-sym-dynamic(?:-.+)?")
#: format of the weights -> fallback if the named kernel is not available
_OTHERWISE = {"fp8-channel": "fp8", "int8-channel": "int8", "fp8-tensor": "fp8", "fp8-block128": "dequant"}


def is_long_name(name: str) -> bool:
    """Return whether a name is a supported value of ``mm_config.mm_type``."""
    return name in MM_TYPES or _CHANNEL.fullmatch(name) is not None


def format_of(name: str) -> str:
    """Return the weight format of a short or long name; the name itself if it is unknown."""
    if (match := _CHANNEL.fullmatch(name)) is not None:
        return f"{match[1]}-channel"
    if (scheme := scheme_of(name)) is not None:
        return scheme.format
    entry = catalog.quantizers().get(name)
    return name if entry is None else str(entry["formats"][0])


def family_of(name: str) -> str:
    """Return ``fp8`` or ``int8``, the file precision of a scheme name; empty for all other formats."""
    family = format_of(name).partition("-")[0]
    return family if family in ("fp8", "int8") else ""


def wanted(name: str) -> list[str]:
    """Return the quantizers for a scheme name of LightX2V: its kernel if available, else any for the same format.

    The format itself has no alternative: a name without a fallback for its format is returned alone.
    """
    otherwise = _OTHERWISE.get(format_of(name))
    return [name] if otherwise in (None, name) else [f"{name}?", str(otherwise)]
