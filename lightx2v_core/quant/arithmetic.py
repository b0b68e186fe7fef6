"""Quantization and dequantization of weights and activations in the fp8 and int8 formats.

Shape legend: O output features, I input features, L rows of activations. Scales are always float32. The rules are those
of LightX2V's converter (per channel) and of ComfyUI's (per tensor): symmetric, no zero point, round half to even.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_GRAINS = ("channel", "tensor", "tensor-static", "block128", "plain")
#: format -> dtype of its quantized values, and granularity of its scales
_FORMATS = {
    **{f"fp8-{grain}": (torch.float8_e4m3fn, grain) for grain in _GRAINS},
    **{f"fp8-e5m2-{grain}": (torch.float8_e5m2, grain) for grain in _GRAINS},
    **{f"int8-{grain}": (torch.int8, grain) for grain in ("channel", "tensor", "tensor-static")},
}
#: formats that ``quantize_weight`` produces and ``dequantize_weight`` reads
WEIGHT_FORMATS = frozenset(_FORMATS)
#: largest absolute value used in each dtype
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}
#: lower bounds for the largest value of a channel or block, which keep scales above zero
_LEAST_CHANNEL, _LEAST_BLOCK = 1e-5, 1e-4
#: lower bound for scales of activations: a row of zeros must not divide by zero
_LEAST_TOKEN_SCALE = 1e-12
_BLOCK = 128
#: number of values processed at once
_PIECE = 1 << 23


def quantize_weight(weight_OI: Tensor, format: str) -> dict[str, Tensor]:
    """Quantize a weight [O, I] to one of ``WEIGHT_FORMATS``, in pieces of rows, to limit the memory for float32 copies.

    Returns tensors by suffix: quantized values [O, I] under ``weight`` and, except for plain fp8, float32 scales under
    ``weight_scale``. Raises ``ValueError`` for another format, and for a value that is not finite: quantized, it would
    look like any other number.
    """
    if format not in WEIGHT_FORMATS:
        raise ValueError(
            f"unsupported weight format {format}; choose from {', '.join(sorted(WEIGHT_FORMATS))}"
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
    """Dequantize ``stored``, which has ``weight`` and, if the format has one, ``weight_scale``. Returns float32."""
    weight = stored["weight"].float()
    if format.endswith("-plain"):
        return weight
    return weight * _spread(stored["weight_scale"].float(), weight.shape)


def weight_error(weight_OI: Tensor, stored: Mapping[str, Tensor], format: str) -> tuple[float, float]:
    """Measure the quantization error of ``stored`` for a weight [O, I], in pieces of rows.

    Returns the root mean square of the difference, relative to that of the weight, and the largest absolute difference.
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
    """Quantize activations [L, I] to ``dtype``, a key of ``LARGEST``, with a scale for each row.

    Returns the quantized values [L, I] and float32 scales [L, 1]: the largest absolute value of a row, divided by
    ``LARGEST[dtype]``.
    """
    x = x_LI.float()
    scale = (x.abs().amax(dim=1, keepdim=True) / LARGEST[dtype]).clamp(min=_LEAST_TOKEN_SCALE)
    return _cast(x / scale, dtype), scale


def _cast(scaled: Tensor, dtype: torch.dtype) -> Tensor:
    # clamped first, since casts of values out of range differ between devices
    if dtype == torch.int8:
        return scaled.round().clamp(-128, 127).to(dtype)
    return scaled.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """Expand a scale, so that it multiplies a weight of ``shape`` element by element."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.numel() == shape[0]:
        return scale.reshape(-1, *(1,) * (len(shape) - 1))
    rows = scale.repeat_interleave(_BLOCK, dim=0)[: shape[0]]
    return rows.repeat_interleave(_BLOCK, dim=1)[:, : shape[1]]


def _in_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """Split a weight along its first axis into pieces of a few million values, each of whole blocks."""
    if not weight.shape:
        return (weight,)
    each = max(_PIECE // max(weight[0].numel(), 1) // _BLOCK, 1) * _BLOCK
    return torch.split(weight, each)


def _of_rows(scale: Tensor, start: int, count: int, rows: int) -> Tensor:
    """Return the part of a scale for ``count`` rows of a weight, from row ``start`` on."""
    if scale.numel() == 1:
        return scale
    if scale.shape[0] == rows:
        return scale[start : start + count]
    return scale[start // _BLOCK : -(-(start + count) // _BLOCK)]


def _largest(weight: Tensor, grain: str) -> Tensor:
    """Compute the largest absolute values that determine the scales, in the scale's shape; per tensor, one for each
    piece."""
    if grain == "channel":
        return weight.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST_CHANNEL)
    if grain == "block128":
        return _block_largest(weight).clamp(min=_LEAST_BLOCK)
    return weight.abs().amax()[None]


def _block_largest(weight_OI: Tensor) -> Tensor:
    """Compute the largest absolute value of each 128 x 128 block."""
    out, inputs = weight_OI.shape
    padded = torch.nn.functional.pad(weight_OI.abs(), (0, -inputs % _BLOCK, 0, -out % _BLOCK))
    rows, columns = (side // _BLOCK for side in padded.shape)
    return padded.view(rows, _BLOCK, columns, _BLOCK).amax(dim=(1, 3))
