"""Quantize and dequantize weights and activations in the fp8 and int8 formats.

Shape legend: O output features, I input features, L rows of activations. Scales are float32 whatever they were computed
from. The rules are those of LightX2V's converter (per channel) and of ComfyUI's (per tensor): symmetric, no zero point,
round half to even.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_GRAINS = ("channel", "tensor", "tensor-static", "block128", "plain")
#: format -> dtype of its quantized values, and what shares a scale
_FORMATS = {
    **{f"fp8-{grain}": (torch.float8_e4m3fn, grain) for grain in _GRAINS},
    **{f"fp8-e5m2-{grain}": (torch.float8_e5m2, grain) for grain in _GRAINS},
    **{f"int8-{grain}": (torch.int8, grain) for grain in ("channel", "tensor", "tensor-static")},
}
#: formats that ``quantize_weight`` makes and ``dequantize_weight`` reads
WEIGHT_FORMATS = frozenset(_FORMATS)
#: the largest value that each dtype is used to
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}
#: the least largest value of a channel or block, which keeps scales above zero
_LEAST_CHANNEL, _LEAST_BLOCK = 1e-5, 1e-4
#: the least scale of activations: a row of zeros must not divide by zero
_LEAST_TOKEN_SCALE = 1e-12
_BLOCK = 128
#: values that are computed with at once
_PIECE = 1 << 23


def quantize_weight(weight_OI: Tensor, format: str) -> dict[str, Tensor]:
    """Quantize a weight [O, I] to one of ``WEIGHT_FORMATS``, some rows at a time: little is held in float32 at once.

    Returns tensors by suffix: quantized values [O, I] under ``weight`` and, but for plain fp8, float32 scales under
    ``weight_scale``. ``ValueError`` for another format, and for a value that is not finite: quantized, it would be a
    number like any other.
    """
    if format not in WEIGHT_FORMATS:
        raise ValueError(
            f"weights are not stored as {format} here, but as {', '.join(sorted(WEIGHT_FORMATS))}"
        )
    dtype, grain = _FORMATS[format]
    largest = torch.cat([_largest(rows.float(), grain) for rows in _in_rows(weight_OI)])
    if grain.startswith("tensor"):
        largest = largest.amax()
        largest = torch.where(largest == 0, 1.0, largest)
    if not largest.is_meta and not bool(torch.isfinite(largest).all()):
        raise ValueError("it has values that are not finite")
    quantized = torch.empty(weight_OI.shape, dtype=dtype, device=weight_OI.device)
    if grain == "plain":
        for rows, out in zip(_in_rows(weight_OI), _in_rows(quantized), strict=True):
            out.copy_(_cast(rows.float(), dtype))
        return {"weight": quantized}
    scale = largest / LARGEST[dtype]
    start = 0
    for rows, out in zip(_in_rows(weight_OI), _in_rows(quantized), strict=True):
        part = _of_rows(scale, start, rows.shape[0], weight_OI.shape[0])
        out.copy_(_cast(rows.float() / _spread(part, rows.shape), dtype))
        start += rows.shape[0]
    return {"weight": quantized, "weight_scale": scale}


def dequantize_weight(stored: Mapping[str, Tensor], format: str) -> Tensor:
    """Return the float32 weight of ``stored``: ``weight`` and, if the format has one, ``weight_scale``."""
    weight = stored["weight"].float()
    if format.endswith("-plain"):
        return weight
    return weight * _spread(stored["weight_scale"].float(), weight.shape)


def weight_error(weight_OI: Tensor, stored: Mapping[str, Tensor], format: str) -> tuple[float, float]:
    """Measure how far ``stored`` is from a weight [O, I], some rows at a time.

    Returns the root mean square of the difference, relative to that of the weight, and the largest difference.
    """
    square = size = largest = 0.0
    start = 0
    for rows, values in zip(_in_rows(weight_OI), _in_rows(stored["weight"]), strict=True):
        part = {"weight": values}
        if "weight_scale" in stored:
            part["weight_scale"] = _of_rows(stored["weight_scale"], start, rows.shape[0], weight_OI.shape[0])
        plain = rows.float()
        error = dequantize_weight(part, format).sub_(plain)
        square += float(error.square().sum(dtype=torch.float64))
        size += float(plain.square().sum(dtype=torch.float64))
        largest = max(largest, float(error.abs_().amax()))
        start += rows.shape[0]
    return (square / size) ** 0.5 if size else 0.0, largest


def quantize_tokens(x_LI: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantize activations [L, I] to ``dtype``, which is in ``LARGEST``, with a scale for each row.

    Returns the quantized values [L, I] and float32 scales [L, 1]: the largest value of a row by that of ``dtype``.
    """
    x = x_LI.float()
    scale = (x.abs().amax(dim=1, keepdim=True) / LARGEST[dtype]).clamp(min=_LEAST_TOKEN_SCALE)
    return _cast(x / scale, dtype), scale


def _cast(scaled: Tensor, dtype: torch.dtype) -> Tensor:
    # casts of values out of range differ between devices, so nothing is left to them
    if dtype == torch.int8:
        return scaled.round().clamp(-128, 127).to(dtype)
    return scaled.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """Spread a scale out, so that it multiplies a weight of ``shape`` element by element."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.numel() == shape[0]:
        return scale.reshape(-1, *(1,) * (len(shape) - 1))
    rows = scale.repeat_interleave(_BLOCK, dim=0)[: shape[0]]
    return rows.repeat_interleave(_BLOCK, dim=1)[:, : shape[1]]


def _in_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """Split a weight along its first axis into pieces of a few million values, of whole blocks each."""
    if not weight.shape:
        return (weight,)
    each = max(_PIECE // max(weight[0].numel(), 1) // _BLOCK, 1) * _BLOCK
    return torch.split(weight, each)


def _of_rows(scale: Tensor, start: int, count: int, rows: int) -> Tensor:
    """Take the part of a scale that belongs to some of the rows of a weight."""
    if scale.numel() == 1:
        return scale
    if scale.shape[0] == rows:
        return scale[start : start + count]
    return scale[start // _BLOCK : -(-(start + count) // _BLOCK)]


def _largest(weight: Tensor, grain: str) -> Tensor:
    """Find the largest value of what shares a scale, in the scale's shape; of a whole tensor one for each piece."""
    if grain == "channel":
        return weight.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST_CHANNEL)
    if grain == "block128":
        return _block_largest(weight).clamp(min=_LEAST_BLOCK)
    return weight.abs().amax()[None]


def _block_largest(weight_OI: Tensor) -> Tensor:
    """Find the largest value of each 128 x 128 block."""
    out, inputs = weight_OI.shape
    padded = torch.nn.functional.pad(weight_OI.abs(), (0, -inputs % _BLOCK, 0, -out % _BLOCK))
    rows, columns = (side // _BLOCK for side in padded.shape)
    return padded.view(rows, _BLOCK, columns, _BLOCK).amax(dim=(1, 3))
