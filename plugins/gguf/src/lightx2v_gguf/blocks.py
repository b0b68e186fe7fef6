"""GGML's block formats as tensor operations: packed bytes to float32 and, for the simple formats, back.

Shape legend: N blocks, B bytes and V values per block; G groups of a block with one scale each, W values per group.
Layouts and order of operations follow ggml (``ggml-common.h``, ``ggml-quants.c``), so results are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lightx2v_gguf.types import BLOCKS, WRITTEN

#: values decoded or packed at once, to bound temporary memory
_PIECE = 1 << 22


def decode(packed_NB: Tensor, format: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Decode packed blocks (uint8) to values [N * V], computed in float32 and cast to ``dtype``.

    Blocks are processed in chunks of some megabytes.
    """
    rule, (values, _) = _DECODERS[format], BLOCKS[format]
    out = torch.empty(packed_NB.shape[0], values, dtype=dtype, device=packed_NB.device)
    each = max(_PIECE // values, 1)
    for blocks, target in zip(torch.split(packed_NB, each), torch.split(out, each), strict=True):
        target.copy_(rule(blocks).view(-1, values))
    return out.view(-1)


def encode(values: Tensor, format: str) -> Tensor:
    """Pack the values, in order, into blocks [N, B] (uint8).

    Raises ``ValueError`` for a format that cannot be written, for a number of values that does not divide into blocks,
    and for values that are not finite or too large.
    """
    if format not in WRITTEN:
        raise ValueError(f"cannot write weights as {format}; supported are {', '.join(WRITTEN)}")
    size, bytes = BLOCKS[format]
    if values.numel() % size:
        raise ValueError(f"{list(values.shape)} does not divide into blocks of {size}")
    if not values.is_meta and not bool(torch.isfinite(values).all()):
        raise ValueError("its values are not finite")
    x_NV = values.reshape(-1, size)
    out = torch.empty(x_NV.shape[0], bytes, dtype=torch.uint8, device=values.device)
    each = max(_PIECE // size, 1)
    for part, target in zip(torch.split(x_NV, each), torch.split(out, each), strict=True):
        target.copy_(_ENCODERS[format](part.float()))
    return out


def _half(blocks_NB: Tensor, start: int) -> Tensor:
    """Read the float16 number at byte ``start`` of each block, as float32 [N, 1]."""
    return blocks_NB[:, start : start + 2].contiguous().view(torch.float16).float()


def _shifted(bytes: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Extract the bit fields of each byte: [..., n] to [..., len(shifts), n]."""
    by = torch.tensor(shifts, dtype=torch.uint8, device=bytes.device).view(-1, 1)
    return (bytes.unsqueeze(-2) >> by) & mask


def _nibbles(bytes_N16: Tensor) -> Tensor:
    """Extract 32 values of 4 bits: the low halves of all bytes, then the high halves."""
    return _shifted(bytes_N16, (0, 4), 0x0F).flatten(1)


def _bits(bytes_N4: Tensor) -> Tensor:
    """Extract 32 bits in order, as [N, 32]."""
    return _shifted(bytes_N4, tuple(range(8)), 1).transpose(1, 2).flatten(1)


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _half(b, 0) * _nibbles(b[:, 4:]).float() + _half(b, 2)


def _q5_0(b: Tensor) -> Tensor:
    codes = _nibbles(b[:, 6:]) | (_bits(b[:, 2:6]) << 4)
    return _half(b, 0) * (codes.float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    codes = _nibbles(b[:, 8:]) | (_bits(b[:, 4:8]) << 4)
    return _half(b, 0) * codes.float() + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return b[:, 2:].contiguous().view(torch.int8).float() * _half(b, 0)


def _q2_k(b: Tensor) -> Tensor:
    """Decode 16 groups of 16 values, each with a scale and a minimum of 4 bits."""
    scales_NG, codes = b[:, :16], b[:, 16:80]
    d, least = _half(b, 80), _half(b, 82)
    q_NGW = _shifted(codes.reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    scale = (d * (scales_NG & 0x0F).float()).unsqueeze(-1)
    return scale * q_NGW.float() - (least * (scales_NG >> 4).float()).unsqueeze(-1)


def _q3_k(b: Tensor) -> Tensor:
    """Decode 16 groups of 16 with 6-bit scales; the third bit of a value is stored apart: 4 is subtracted if unset."""
    high, codes, packed, d = b[:, :32], b[:, 32:96], b[:, 96:108], _half(b, 108)
    low = _shifted(packed[:, :8], (0, 4), 0x0F).flatten(1)
    top = _shifted(packed[:, 8:], (0, 2, 4, 6), 3).flatten(1)
    scale = d * ((low | (top << 4)).float() - 32)
    q = _shifted(codes.reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    third = _shifted(high, tuple(range(8)), 1).reshape(-1, 16, 16)
    return scale.unsqueeze(-1) * (q.float() - (4 - 4 * third.float()))


def _scales_and_least(packed_N12: Tensor) -> tuple[Tensor, Tensor]:
    """Extract eight scales and eight minima of 6 bits, each [N, 8].

    Each of the first four is in the low bits of its own byte. The others have their low bits in a shared byte and their
    top bits in the two unused bits of the first four.
    """
    first, second, mixed = packed_N12[:, :4], packed_N12[:, 4:8], packed_N12[:, 8:]
    scales = torch.cat([first & 0x3F, (mixed & 0x0F) | ((first >> 6) << 4)], dim=1)
    least = torch.cat([second & 0x3F, (mixed >> 4) | ((second >> 6) << 4)], dim=1)
    return scales.float(), least.float()


def _in_eight_groups(b: Tensor, codes_NGW: Tensor) -> Tensor:
    """Decode formats with eight groups of 32 values: scale times code minus minimum."""
    scales, least = _scales_and_least(b[:, 4:16])
    return (_half(b, 0) * scales).unsqueeze(-1) * codes_NGW.float() - (_half(b, 2) * least).unsqueeze(-1)


def _q4_k(b: Tensor) -> Tensor:
    return _in_eight_groups(b, _shifted(b[:, 16:].reshape(-1, 4, 32), (0, 4), 0x0F).reshape(-1, 8, 32))


def _q5_k(b: Tensor) -> Tensor:
    low = _shifted(b[:, 48:].reshape(-1, 4, 32), (0, 4), 0x0F).reshape(-1, 8, 32)
    return _in_eight_groups(b, low | (_shifted(b[:, 16:48], tuple(range(8)), 1) << 4))


def _q6_k(b: Tensor) -> Tensor:
    """Decode 16 groups of 16 with int8 scales; four bits of a value are stored apart from the other two."""
    low = _shifted(b[:, :128].reshape(-1, 2, 64), (0, 4), 0x0F).reshape(-1, 16, 16)
    high = _shifted(b[:, 128:192].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    scale = _half(b, 208) * b[:, 192:208].contiguous().view(torch.int8).float()
    return scale.unsqueeze(-1) * ((low | (high << 4)).float() - 32)


_DECODERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gguf-q4_0": _q4_0, "gguf-q4_1": _q4_1, "gguf-q5_0": _q5_0, "gguf-q5_1": _q5_1, "gguf-q8_0": _q8_0,
    "gguf-q2_k": _q2_k, "gguf-q3_k": _q3_k, "gguf-q4_k": _q4_k, "gguf-q5_k": _q5_k, "gguf-q6_k": _q6_k,
}  # fmt: skip


def _inverse(scale: Tensor) -> Tensor:
    """Compute 1 / scale, and 0 for 0."""
    return torch.where(scale == 0, 0.0, 1 / scale)


def _as_bytes(*numbers_N1: Tensor) -> Tensor:
    """Convert numbers to the bytes of float16. Raises ``ValueError`` for those out of range."""
    halves = torch.cat([number.to(torch.float16) for number in numbers_N1], dim=1)
    if not halves.is_meta and not bool(torch.isfinite(halves).all()):
        raise ValueError("its values are too large for scales in float16")
    return halves.view(torch.uint8)


def _halves(codes_N32: Tensor) -> Tensor:
    """Pack the 4-bit codes of 32 values into 16 bytes: the first sixteen in the low halves."""
    return (codes_N32[:, :16] & 0x0F) | (codes_N32[:, 16:] << 4)


def _top_bits(codes_N32: Tensor) -> Tensor:
    """Pack the fifth bits of 32 values into four bytes."""
    weights = 1 << torch.arange(8, device=codes_N32.device)
    return ((codes_N32 >> 4).view(-1, 4, 8) * weights).sum(-1).to(torch.uint8)


def _symmetric(x_NV: Tensor, zero: int) -> tuple[Tensor, Tensor]:
    """Compute scale [N, 1] and codes around ``zero``; the value farthest from 0 gets code 0."""
    farthest = x_NV.gather(1, x_NV.abs().argmax(dim=1, keepdim=True))
    scale = farthest / -zero
    codes = (x_NV * _inverse(scale) + (zero + 0.5)).trunc().clamp(0, 2 * zero - 1)
    return scale, codes.to(torch.uint8)


def _from_least(x_NV: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute scale [N, 1], minimum [N, 1] and codes from 0 to ``most``."""
    least = x_NV.amin(dim=1, keepdim=True)
    scale = (x_NV.amax(dim=1, keepdim=True) - least) / most
    codes = ((x_NV - least) * _inverse(scale) + 0.5).trunc().clamp(0, most)
    return scale, least, codes.to(torch.uint8)


def _to_q4_0(x: Tensor) -> Tensor:
    scale, codes = _symmetric(x, 8)
    return torch.cat([_as_bytes(scale), _halves(codes)], dim=1)


def _to_q4_1(x: Tensor) -> Tensor:
    scale, least, codes = _from_least(x, 15)
    return torch.cat([_as_bytes(scale, least), _halves(codes)], dim=1)


def _to_q5_0(x: Tensor) -> Tensor:
    scale, codes = _symmetric(x, 16)
    return torch.cat([_as_bytes(scale), _top_bits(codes), _halves(codes)], dim=1)


def _to_q5_1(x: Tensor) -> Tensor:
    scale, least, codes = _from_least(x, 31)
    return torch.cat([_as_bytes(scale, least), _top_bits(codes), _halves(codes)], dim=1)


def _to_q8_0(x: Tensor) -> Tensor:
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    scaled = x * _inverse(scale)
    codes = scaled.sign() * (scaled.abs() + 0.5).floor()  # halves away from zero
    return torch.cat([_as_bytes(scale), codes.to(torch.int8).view(torch.uint8)], dim=1)


_ENCODERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gguf-q4_0": _to_q4_0, "gguf-q4_1": _to_q4_1, "gguf-q5_0": _to_q5_0, "gguf-q5_1": _to_q5_1, "gguf-q8_0": _to_q8_0,
}  # fmt: skip
