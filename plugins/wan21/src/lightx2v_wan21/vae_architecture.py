"""Sizes of the Wan2.1 VAE, and the tensors of a checkpoint of a given size. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from attrs import frozen

from lightx2v_wan21.shapes import Shapes, affine, axis


@frozen(kw_only=True)
class VaeArchitecture:
    """Sizes of the Wan2.1 VAE; everything but the three widths is the same in every released file."""

    dim: int
    dec_dim: int
    z_dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)


@frozen
class VaeLayer:
    """One entry of the VAE's ``encoder.downsamples`` or ``decoder.upsamples``."""

    kind: Literal["residual", "down", "up"]
    in_dim: int
    out_dim: int
    temporal: bool = False
    """True if a resampling layer also halves or doubles the number of frames."""


def encoder_layers(arch: VaeArchitecture) -> Iterator[VaeLayer]:
    """Yield the layers of ``encoder.downsamples`` in order."""
    widths = [arch.dim * m for m in (1, *arch.multipliers)]
    for stage, (width, out_width) in enumerate(pairwise(widths)):
        for block in range(arch.num_res_blocks):
            yield VaeLayer("residual", out_width if block else width, out_width)
        if stage < len(arch.temporal_downsample):
            yield VaeLayer("down", out_width, out_width, arch.temporal_downsample[stage])


def decoder_layers(arch: VaeArchitecture) -> Iterator[VaeLayer]:
    """Yield the layers of ``decoder.upsamples`` in order; each upsampling layer halves the channels."""
    temporal_upsample = arch.temporal_downsample[::-1]
    width = arch.dec_dim * arch.multipliers[-1]
    for stage, multiplier in enumerate(reversed(arch.multipliers)):
        out_width = arch.dec_dim * multiplier
        for _ in range(arch.num_res_blocks + 1):
            yield VaeLayer("residual", width, out_width)
            width = out_width
        if stage < len(temporal_upsample):
            width = out_width // 2
            yield VaeLayer("up", out_width, width, temporal_upsample[stage])


def vae_tensors(arch: VaeArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of an official Wan2.1 VAE checkpoint of this size."""
    encoder_top = arch.dim * arch.multipliers[-1]
    decoder_top = arch.dec_dim * arch.multipliers[-1]
    tensors: dict[str, tuple[int, ...]] = {
        **affine("encoder.conv1", arch.dim, 3, 3, 3, 3),
        **vae_middle_tensors("encoder.middle", encoder_top),
        "encoder.head.0.gamma": (encoder_top, 1, 1, 1),
        **affine("encoder.head.2", 2 * arch.z_dim, encoder_top, 3, 3, 3),
        **affine("conv1", 2 * arch.z_dim, 2 * arch.z_dim, 1, 1, 1),
        **affine("conv2", arch.z_dim, arch.z_dim, 1, 1, 1),
        **affine("decoder.conv1", decoder_top, arch.z_dim, 3, 3, 3),
        **vae_middle_tensors("decoder.middle", decoder_top),
        "decoder.head.0.gamma": (arch.dec_dim, 1, 1, 1),
        **affine("decoder.head.2", 3, arch.dec_dim, 3, 3, 3),
    }
    for index, layer in enumerate(encoder_layers(arch)):
        tensors |= vae_layer_tensors(f"encoder.downsamples.{index}", layer)
    for index, layer in enumerate(decoder_layers(arch)):
        tensors |= vae_layer_tensors(f"decoder.upsamples.{index}", layer)
    return tensors


def vae_from(shapes: Shapes) -> VaeArchitecture:
    """Infer the VAE size from the tensor shapes of a checkpoint.

    Raises:
        ValueError: a tensor that every Wan2.1 VAE has is missing.
    """
    where = "a Wan2.1 VAE checkpoint"
    return VaeArchitecture(
        dim=axis(shapes, "encoder.conv1.weight", 0, where),
        dec_dim=axis(shapes, "decoder.head.0.gamma", 0, where),
        z_dim=axis(shapes, "conv2.weight", 0, where),
    )


def vae_layer_tensors(name: str, layer: VaeLayer) -> dict[str, tuple[int, ...]]:
    if layer.kind == "residual":
        return _vae_residual(name, layer.in_dim, layer.out_dim)
    tensors = affine(f"{name}.resample.1", layer.out_dim, layer.in_dim, 3, 3)
    if layer.temporal:
        doubled = 2 if layer.kind == "up" else 1
        tensors |= affine(f"{name}.time_conv", doubled * layer.in_dim, layer.in_dim, 3, 1, 1)
    return tensors


def _vae_residual(name: str, in_dim: int, out_dim: int) -> dict[str, tuple[int, ...]]:
    tensors: dict[str, tuple[int, ...]] = {
        f"{name}.residual.0.gamma": (in_dim, 1, 1, 1),
        **affine(f"{name}.residual.2", out_dim, in_dim, 3, 3, 3),
        f"{name}.residual.3.gamma": (out_dim, 1, 1, 1),
        **affine(f"{name}.residual.6", out_dim, out_dim, 3, 3, 3),
    }
    if in_dim != out_dim:
        tensors |= affine(f"{name}.shortcut", out_dim, in_dim, 1, 1, 1)
    return tensors


def vae_middle_tensors(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        **_vae_residual(f"{name}.0", dim, dim),
        f"{name}.1.norm.gamma": (dim, 1, 1),
        **affine(f"{name}.1.to_qkv", 3 * dim, dim, 1, 1),
        **affine(f"{name}.1.proj", dim, dim, 1, 1),
        **_vae_residual(f"{name}.2", dim, dim),
    }
