"""The arithmetic of the fp8 and int8 formats: weights to codes and scales and back, activations to codes.

Shape legend: O output features, I input features, L rows of activations. Scales are float32 whatever they were computed
from. The rules are those of LightX2V's converter (per channel) and of ComfyUI's (per tensor): symmetric, no zero point,
round half to even.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_GRAINS = ("channel", "tensor", "tensor-static", "block128", "plain")
#: format -> dtype of its codes and what shares a scale
_FORMATS = {
    **{f"fp8-{grain}": (torch.float8_e4m3fn, grain) for grain in _GRAINS},
    **{f"fp8-e5m2-{grain}": (torch.float8_e5m2, grain) for grain in _GRAINS},
    **{f"int8-{grain}": (torch.int8, grain) for grain in ("channel", "tensor", "tensor-static")},
}
#: formats that ``encode_weight`` makes and ``decode_weight`` reads
CODE_FORMATS = frozenset(_FORMATS)
#: the largest code
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}
#: the least largest value of a channel or block, which keeps scales above zero
_LEAST_CHANNEL, _LEAST_BLOCK = 1e-5, 1e-4
#: the least scale of activations: a row of zeros must not divide by zero
_LEAST_TOKEN_SCALE = 1e-12
_BLOCK = 128
#: values that are computed with at once
_PIECE = 1 << 23


def encode_weight(weight_OI: Tensor, format: str) -> dict[str, Tensor]:
    """Encode ``weight_OI`` in one of ``CODE_FORMATS``. Returns tensors by suffix: codes under ``weight`` and, but for
    plain fp8, float32 scales under ``weight_scale``. ``ValueError`` when a value is not finite: a code of it would be a
    number like any other.

    Works through the weight some rows at a time, so that little is held in float32 at once.
    """
    if format not in CODE_FORMATS:
        raise ValueError(f"weights are not stored as {format} here, but as {', '.join(sorted(CODE_FORMATS))}")
    dtype, grain = _FORMATS[format]
    largest = torch.cat([_largest(rows.float(), grain) for rows in _in_rows(weight_OI)])
    if grain.startswith("tensor"):
        largest = largest.amax()
        largest = torch.where(largest == 0, 1.0, largest)
    if not largest.is_meta and not bool(torch.isfinite(largest).all()):
        raise ValueError("it has values that are not finite")
    codes = torch.empty(weight_OI.shape, dtype=dtype, device=weight_OI.device)
    if grain == "plain":
        for rows, out in zip(_in_rows(weight_OI), _in_rows(codes), strict=True):
            out.copy_(_codes(rows.float(), dtype))
        return {"weight": codes}
    scale = largest / LARGEST[dtype]
    start = 0
    for rows, out in zip(_in_rows(weight_OI), _in_rows(codes), strict=True):
        part = _of_rows(scale, start, rows.shape[0], weight_OI.shape[0])
        out.copy_(_codes(rows.float() / _spread(part, rows.shape), dtype))
        start += rows.shape[0]
    return {"weight": codes, "weight_scale": scale}


def decode_weight(stored: Mapping[str, Tensor], format: str) -> Tensor:
    """The float32 weight that ``stored`` (``weight`` and, if the format has one, ``weight_scale``) stands for."""
    weight = stored["weight"].float()
    if format.endswith("-plain"):
        return weight
    return weight * _spread(stored["weight_scale"].float(), weight.shape)


def weight_error(weight_OI: Tensor, stored: Mapping[str, Tensor], format: str) -> tuple[float, float]:
    """How far ``stored`` is from the weight: root of the mean square, relative to that of the weight, and the largest
    difference. Works through the weight some rows at a time."""
    square = size = largest = 0.0
    start = 0
    for rows, codes in zip(_in_rows(weight_OI), _in_rows(stored["weight"]), strict=True):
        part = {"weight": codes}
        if "weight_scale" in stored:
            part["weight_scale"] = _of_rows(stored["weight_scale"], start, rows.shape[0], weight_OI.shape[0])
        plain = rows.float()
        error = decode_weight(part, format).sub_(plain)
        square += float(error.square().sum(dtype=torch.float64))
        size += float(plain.square().sum(dtype=torch.float64))
        largest = max(largest, float(error.abs_().amax()))
        start += rows.shape[0]
    return (square / size) ** 0.5 if size else 0.0, largest


def token_codes(x_LI: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes [L, I] of activations in ``dtype``, and one float32 scale [L, 1] a row: its largest value by the largest
    code."""
    x = x_LI.float()
    scale = (x.abs().amax(dim=1, keepdim=True) / LARGEST[dtype]).clamp(min=_LEAST_TOKEN_SCALE)
    return _codes(x / scale, dtype), scale


def _codes(scaled: Tensor, dtype: torch.dtype) -> Tensor:
    # casts of values out of range differ between devices, so nothing is left to them
    if dtype == torch.int8:
        return scaled.round().clamp(-128, 127).to(dtype)
    return scaled.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """A scale that multiplies a weight of ``shape`` element by element."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.numel() == shape[0]:
        return scale.reshape(-1, *(1,) * (len(shape) - 1))
    rows = scale.repeat_interleave(_BLOCK, dim=0)[: shape[0]]
    return rows.repeat_interleave(_BLOCK, dim=1)[:, : shape[1]]


def _in_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """A weight in pieces of a few million values, along its first axis: whole blocks each."""
    if not weight.shape:
        return (weight,)
    each = max(_PIECE // max(weight[0].numel(), 1) // _BLOCK, 1) * _BLOCK
    return torch.split(weight, each)


def _of_rows(scale: Tensor, start: int, count: int, rows: int) -> Tensor:
    """The part of a scale that belongs to some of the rows of a weight."""
    if scale.numel() == 1:
        return scale
    if scale.shape[0] == rows:
        return scale[start : start + count]
    return scale[start // _BLOCK : -(-(start + count) // _BLOCK)]


def _largest(weight: Tensor, grain: str) -> Tensor:
    """The largest value of what shares a scale, in the shape of the scale but for whole tensors: one for each piece."""
    if grain == "channel":
        return weight.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST_CHANNEL)
    if grain == "block128":
        return _block_largest(weight).clamp(min=_LEAST_BLOCK)
    return weight.abs().amax()[None]


def _block_largest(weight_OI: Tensor) -> Tensor:
    """The largest value of each 128 x 128 block."""
    out, inputs = weight_OI.shape
    padded = torch.nn.functional.pad(weight_OI.abs(), (0, -inputs % _BLOCK, 0, -out % _BLOCK))
    rows, columns = (side // _BLOCK for side in padded.shape)
    return padded.view(rows, _BLOCK, columns, _BLOCK).amax(dim=(1, 3))
