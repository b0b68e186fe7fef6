"""Tables of the supported GGML tensor types. Does not import torch.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and the block layouts of ggml's ``ggml-common.h``.
"""

from __future__ import annotations

from collections.abc import Mapping

#: type number -> torch dtype, for types without blocks
PLAIN: Mapping[int, str] = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16",
}  # fmt: skip
#: type number -> format name; values and bytes per block
PACKED: Mapping[int, tuple[str, tuple[int, int]]] = {
    2: ("gguf-q4_0", (32, 18)), 3: ("gguf-q4_1", (32, 20)), 6: ("gguf-q5_0", (32, 22)), 7: ("gguf-q5_1", (32, 24)),
    8: ("gguf-q8_0", (32, 34)), 10: ("gguf-q2_k", (256, 84)), 11: ("gguf-q3_k", (256, 110)),
    12: ("gguf-q4_k", (256, 144)), 13: ("gguf-q5_k", (256, 176)), 14: ("gguf-q6_k", (256, 210)),
}  # fmt: skip
#: format -> values and bytes per block
BLOCKS: Mapping[str, tuple[int, int]] = dict(PACKED.values())
#: formats that can be written: those with a scale from the maximum, or from minimum and maximum, of each block
WRITTEN = ("gguf-q8_0", "gguf-q5_1", "gguf-q5_0", "gguf-q4_1", "gguf-q4_0")
#: names of unsupported types, for messages
OTHERS: Mapping[int, str] = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


def type_name(number: int) -> str:
    """Return the name of a type in GGML."""
    if number in PACKED:
        return PACKED[number][0].removeprefix("gguf-").upper()
    return PLAIN.get(number) or OTHERS.get(number) or f"number {number}"
