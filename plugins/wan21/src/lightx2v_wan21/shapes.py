"""Tensor names and shapes as plain data: small helpers of the architecture modules. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping

#: tensor name -> shape in checkpoint order: linear weights ``(out, in)``, convolutions ``(out, in, *kernel)``
Shapes = Mapping[str, tuple[int, ...]]

#: of one kind; those of a transformer have more than 100,000 tensors
MOST_BLOCKS = 4000


def affine(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias of a layer."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """How many different ``prefix.N.`` there are. ``ValueError`` for more than ``MOST_BLOCKS``: what is expected of a
    network is worked out for each of its blocks, whatever a file has of them."""
    depth = prefix.count(".") + 1
    count = len({key.split(".", depth + 1)[depth] for key in shapes if key.startswith(f"{prefix}.")})
    if count > MOST_BLOCKS:
        raise ValueError(f"there are {count} different {prefix}.N; no network has more than {MOST_BLOCKS}")
    return count


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
    ``axis``, and when they are not those of a convolution."""
    channels = axis(shapes, "patch_embedding.weight", 1, "a Wan transformer")
    shape = shapes["patch_embedding.weight"]
    if len(shape) == 2:
        raise ValueError(
            f"patch_embedding.weight is {list(shape)}, a linear layer, and a Wan transformer has a convolution there "
            f"[{shape[0]}, channels, 1, 2, 2]; in which order it takes the {shape[1]} numbers of a patch is not said: "
            "convert the network with the program that made it"
        )
    if len(shape) != 5:
        raise ValueError(
            f"patch_embedding.weight is {list(shape)}, and a Wan transformer has a convolution there "
            f"[{shape[0]}, channels, 1, 2, 2]"
        )
    return channels
