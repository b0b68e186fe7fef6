"""Sizes of the tiny VAEs (TAEHV), and the tensors of a file of a given size. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from attrs import field, frozen

from lightx2v_wan21.shapes import Shapes, affine, axis


def _ints(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(value)


@frozen(kw_only=True)
class TaeArchitecture:
    """Sizes of a tiny VAE."""

    enc_dim: int
    #: width of each of the four stages of the decoder
    dec_dims: tuple[int, ...] = field(converter=_ints)
    z_dim: int
    #: 3 * patch_size^2
    image_channels: int
    #: output channels of the three layers that produce frames; a file may have more than needed
    grow_rows: tuple[int, ...] = field(converter=_ints)

    def __attrs_post_init__(self) -> None:
        if 3 * self.patch_size**2 != self.image_channels:
            raise ValueError(f"{self.image_channels} image channels are not three times a square")
        for dim, stride, rows in zip(self.dec_dims, (1, 2, 2), self.grow_rows, strict=False):
            if rows < dim * stride:
                raise ValueError(f"a layer that produces {stride} frames of width {dim} has only {rows} rows")

    @property
    def patch_size(self) -> int:
        """Return the side of the pixel squares that are folded into channels: 1 for Wan2.1, 2 for Wan2.2."""
        return isqrt(self.image_channels // 3)


def tae_tensors(arch: TaeArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of a tiny VAE of this size."""
    enc, dims = arch.enc_dim, arch.dec_dims
    tensors: dict[str, tuple[int, ...]] = {
        **affine("encoder.0", enc, arch.image_channels, 3, 3),
        **affine("encoder.17", arch.z_dim, enc, 3, 3),
        **affine("decoder.1", dims[0], arch.z_dim, 3, 3),
        **affine("decoder.22", arch.image_channels, dims[3], 3, 3),
    }
    for start, stride in ((2, 2), (7, 2), (12, 1)):
        tensors[f"encoder.{start}.conv.weight"] = (enc, stride * enc, 1, 1)
        tensors[f"encoder.{start + 1}.weight"] = (enc, enc, 3, 3)
        for index in range(start + 2, start + 5):
            tensors |= _block(f"encoder.{index}", enc)
    for stage, start in enumerate((3, 9, 15)):
        for index in range(start, start + 3):
            tensors |= _block(f"decoder.{index}", dims[stage])
        tensors[f"decoder.{start + 4}.conv.weight"] = (arch.grow_rows[stage], dims[stage], 1, 1)
        tensors[f"decoder.{start + 5}.weight"] = (dims[stage + 1], dims[stage], 3, 3)
    return tensors


def tae_from(shapes: Shapes) -> TaeArchitecture:
    """Infer the size from the tensor shapes of a file.

    Raises:
        ValueError: a tensor that every tiny VAE has is missing, or a shape is impossible.
    """
    where = "a tiny VAE (TAEHV) file"
    return TaeArchitecture(
        enc_dim=axis(shapes, "encoder.0.weight", 0, where),
        dec_dims=tuple(axis(shapes, f"decoder.{layer}.weight", 0, where) for layer in (1, 8, 14, 20)),
        z_dim=axis(shapes, "decoder.1.weight", 1, where),
        image_channels=axis(shapes, "decoder.22.weight", 0, where),
        grow_rows=tuple(axis(shapes, f"decoder.{layer}.conv.weight", 0, where) for layer in (7, 13, 19)),
    )


def _block(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        **affine(f"{name}.conv.0", dim, 2 * dim, 3, 3),
        **affine(f"{name}.conv.2", dim, dim, 3, 3),
        **affine(f"{name}.conv.4", dim, dim, 3, 3),
    }
