"""Computation of LoRA changes, in float32.

``W' = W + strength * (alpha / rank) * up @ down`` (Hu et al., https://arxiv.org/abs/2106.09685), with a core between
the two for Tucker decompositions of convolutions; LoHa ``(a1 b1) * (a2 b2)`` and LoKr ``kron(w1, w2)`` as in LyCORIS
(https://github.com/KohakuBlueleaf/LyCORIS); DoRA ``m (W + d) / |W + d|`` (https://arxiv.org/abs/2402.09353), where the
strength interpolates between ``W`` and that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING

from lightx2v_core.spec.protocols import Adapter, Change

if TYPE_CHECKING:
    from torch import Tensor


def changed(weight: Tensor, steps: Iterable[tuple[Adapter, Change]]) -> Tensor:
    """Return ``weight``, of any float dtype, with changes applied in their order, as a new float32 tensor."""
    result = weight.float()
    if result is weight:
        result = weight.clone()
    for adapter, change in steps:
        part = result if change.rows is None else result[slice(*change.rows)]
        part.copy_(_with_change(part, adapter, change))
    return result


def delta(adapter: Adapter, change: Change, device: str = "cpu") -> Tensor:
    """Compute the difference that a change adds at strength 1, scaled by alpha / rank: float32, in the shape of its
    rows."""
    factors = read_factors(adapter, change, device)
    if change.kind == "diff":
        difference = factors["diff"]
    elif change.kind == "low-rank":
        difference = _low_rank(factors)
    elif change.kind == "loha":
        difference = _factor(factors, "w1", "t1") * _factor(factors, "w2", "t2")
    else:
        difference = _kronecker(_factor(factors, "w1", "t1"), _factor(factors, "w2", "t2"))
    return difference.reshape(change.part_shape) * change.scale


def read_factors(adapter: Adapter, change: Change, device: str = "cpu") -> dict[str, Tensor]:
    """Read the tensors of a change by role, in float32; without the alpha, which is part of the change's scale."""
    return {
        role: adapter.source.read(name, device).float()
        for role, name in change.tensors.items()
        if role != "alpha"
    }


def _with_change(weight: Tensor, adapter: Adapter, change: Change) -> Tensor:
    device = str(weight.device)
    added = delta(adapter, change, device).reshape(weight.shape)
    if "magnitude" not in change.tensors:
        return weight + adapter.strength * added
    magnitude = adapter.source.read(change.tensors["magnitude"], device).float()
    return weight + adapter.strength * (_rescaled(weight + added, magnitude) - weight)


def _rescaled(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Rescale the rows of ``weight`` (its columns, for a magnitude [1, in]) to the norms in ``magnitude``."""
    rows, columns = weight.shape[0], weight.shape[1]
    by_column = magnitude.ndim > 1 and magnitude.shape[0] == 1 and magnitude.numel() == columns
    by_column = by_column or magnitude.numel() != rows
    axis = 1 if by_column else 0
    others = [dim for dim in range(weight.ndim) if dim != axis]
    length = weight.square().sum(dim=others, keepdim=True).sqrt()
    tiny = 1.1920929e-07  # float32's epsilon, so that a row of zeros stays zero
    return weight * (magnitude.reshape(length.shape) / (length + tiny))


def _low_rank(factors: Mapping[str, Tensor]) -> Tensor:
    up, down = factors["up"].flatten(1), factors["down"].flatten(1)
    if "mid" not in factors:
        return up @ down
    mid = factors["mid"]
    core = (up @ mid.flatten(1)).reshape(up.shape[0], mid.shape[1], prod(mid.shape[2:]))
    return (core.transpose(1, 2) @ down).transpose(1, 2)


def _factor(factors: Mapping[str, Tensor], part: str, core: str) -> Tensor:
    """Compute a factor that is stored as one tensor, as a product, or as a product with a core tensor."""
    if part in factors:
        return factors[part]
    a, b = factors[f"{part}_a"], factors[f"{part}_b"]
    if core not in factors:
        return a @ b
    import torch

    return torch.einsum("ij...,ip,jr->pr...", factors[core], a, b)


def _kronecker(first: Tensor, second: Tensor) -> Tensor:
    import torch

    return torch.kron(first.reshape(*first.shape, *(1,) * (second.ndim - 2)), second.contiguous())
