"""Tensor names and shapes as plain data: small helpers of the architecture modules. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping

#: tensor name -> shape in checkpoint order: linear weights ``(out, in)``, convolutions ``(out, in, *kernel)``
Shapes = Mapping[str, tuple[int, ...]]


def affine(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias of a layer."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """How many different ``prefix.N.`` there are."""
    depth = prefix.count(".") + 1
    return len({key.split(".")[depth] for key in shapes if key.startswith(f"{prefix}.")})


def is_size(value: object) -> bool:
    """Whether a value of a JSON file is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def axis(shapes: Shapes, key: str, index: int, where: str) -> int:
    """Length of one axis of a tensor, at least 1. ``ValueError`` when the tensor is missing, or has too few axes or no
    elements."""
    if key not in shapes:
        raise ValueError(f"not {where}: {key!r} is missing ({len(shapes)} tensors in the file)")
    shape = shapes[key]
    if not -len(shape) <= index < len(shape) or not shape[index]:
        raise ValueError(f"not {where}: {key!r} has shape {list(shape)}")
    return shape[index]


def input_channels(shapes: Shapes) -> int:
    """Channels of the latents that a Wan transformer takes, images and masks among them. ``ValueError`` as for
    ``axis``."""
    return axis(shapes, "patch_embedding.weight", 1, "a Wan transformer")
