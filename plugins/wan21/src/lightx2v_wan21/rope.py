"""Rotary position embedding over (frame, row, column) for the Wan transformer.

Shapes: B batch, L tokens (frames x rows x columns, columns fastest), H heads, D channels of one head.
"""

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]
"""Cosines and sines, each float32 ``[L, D/2]``."""

THETA = 10000.0


def rope_table(grid: tuple[int, int, int], head_dim: int, device: torch.device | str) -> Rope:
    """Compute cosines and sines for every token of a (frames, rows, columns) grid.

    The channels are split over the three axes as in the official model: rows and columns get ``2 * (head_dim // 6)``
    each, frames the rest. Angles are computed in float64, stored in float32.
    """
    spatial_dim = 2 * (head_dim // 6)
    axis_dims = (head_dim - 2 * spatial_dim, spatial_dim, spatial_dim)
    cos: list[Tensor] = []
    sin: list[Tensor] = []
    for axis, (length, dim) in enumerate(zip(grid, axis_dims, strict=True)):
        angles = _angles(length, dim)
        # [length, dim/2] on its own axis of the grid, then repeated along the other two.
        place = [1, 1, 1, dim // 2]
        place[axis] = length
        for parts, values in ((cos, angles.cos()), (sin, angles.sin())):
            parts.append(values.float().to(device).view(place).expand(*grid, dim // 2))
    return torch.cat(cos, dim=-1).flatten(0, 2), torch.cat(sin, dim=-1).flatten(0, 2)


def apply_rope(x_BLHD: Tensor, rope: Rope) -> Tensor:
    """Rotate each (even, odd) pair of channels by its token's angle; returns float32 ``[B, L, H, D]``."""
    cos, sin = (part[:, None, :] for part in rope)
    even, odd = x_BLHD.float().view(*x_BLHD.shape[:-1], -1, 2).unbind(-1)
    turned_even = torch.addcmul(even * cos, odd, sin, value=-1)
    turned_odd = torch.addcmul(even * sin, odd, cos)
    return torch.stack((turned_even, turned_odd), dim=-1).flatten(-2)


def _angles(length: int, dim: int) -> Tensor:
    """Compute float64 angles ``[length, dim/2]``; on the CPU, because some devices have no float64."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim
    positions = torch.arange(length, dtype=torch.float64, device="cpu")
    return torch.outer(positions, THETA**-exponents)
