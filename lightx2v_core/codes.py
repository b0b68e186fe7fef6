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
FORMATS = frozenset(_FORMATS)
#: the largest code
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0, torch.int8: 127.0}
#: the least largest value of a channel or block, which keeps scales above zero
_LEAST_CHANNEL, _LEAST_BLOCK = 1e-5, 1e-4
#: the least scale of activations: a row of zeros must not divide by zero
_LEAST_TOKEN_SCALE = 1e-12
_BLOCK = 128


def encode_weight(weight_OI: Tensor, format: str) -> dict[str, Tensor]:
    """The tensors, by suffix, that store ``weight_OI`` in one of ``FORMATS``: codes under ``weight`` and, but for plain
    fp8, float32 scales under ``weight_scale``. ``ValueError`` when a value is not finite: a code of it would be a
    number like any other."""
    if format not in FORMATS:
        raise ValueError(f"weights are not stored as {format} here, but as {', '.join(sorted(FORMATS))}")
    dtype, grain = _FORMATS[format]
    weight = weight_OI.float()
    if grain == "plain":
        _refuse_infinite(weight.abs().amax())
        return {"weight": weight.clamp(-LARGEST[dtype], LARGEST[dtype]).to(dtype)}
    if grain == "channel":
        largest = weight.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST_CHANNEL)
    elif grain != "block128":
        largest = weight.abs().amax()
        largest = torch.where(largest == 0, 1.0, largest)
    else:
        largest = _block_largest(weight).clamp(min=_LEAST_BLOCK)
    _refuse_infinite(largest)
    scale = largest / LARGEST[dtype]
    return {"weight": _codes(weight / _spread(scale, weight.shape), dtype), "weight_scale": scale}


def decode_weight(stored: Mapping[str, Tensor], format: str) -> Tensor:
    """The float32 weight that ``stored`` (``weight`` and, if the format has one, ``weight_scale``) stands for."""
    weight = stored["weight"].float()
    if format.endswith("-plain"):
        return weight
    return weight * _spread(stored["weight_scale"].float(), weight.shape)


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


def _block_largest(weight_OI: Tensor) -> Tensor:
    """The largest value of each 128 x 128 block."""
    out, inputs = weight_OI.shape
    padded = torch.nn.functional.pad(weight_OI.abs(), (0, -inputs % _BLOCK, 0, -out % _BLOCK))
    rows, columns = (side // _BLOCK for side in padded.shape)
    return padded.view(rows, _BLOCK, columns, _BLOCK).amax(dim=(1, 3))


def _refuse_infinite(largest: Tensor) -> None:
    if not largest.is_meta and not bool(torch.isfinite(largest).all()):
        raise ValueError("it has values that are not finite")
