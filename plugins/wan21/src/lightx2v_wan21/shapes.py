"""Tensor names and shapes as plain data, with helpers for the architecture modules. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping

#: tensor name -> shape in checkpoint order: linear weights ``(out, in)``, convolutions ``(out, in, *kernel)``
Shapes = Mapping[str, tuple[int, ...]]

#: limit for blocks with the same prefix; a transformer of that many has more than 100,000 tensors
MOST_BLOCKS = 4000


def affine(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of the weight and the bias of a layer."""
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """Count the distinct ``prefix.N.``

    ``ValueError`` for more than ``MOST_BLOCKS``: the expected tensors of a network are computed for each of its blocks,
    however few tensors of a block a file has.
    """
    depth = prefix.count(".") + 1
    count = len({key.split(".", depth + 1)[depth] for key in shapes if key.startswith(f"{prefix}.")})
    if count > MOST_BLOCKS:
        raise ValueError(f"found {count} blocks {prefix}.N; the limit is {MOST_BLOCKS}")
    return count


def is_size(value: object) -> bool:
    """Return whether a value of a JSON file is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def axis(shapes: Shapes, key: str, index: int, where: str) -> int:
    """Return the length of one axis of a tensor, at least 1.

    ``ValueError`` when the tensor is missing, or has too few axes or no elements.
    """
    if key not in shapes:
        raise ValueError(f"not {where}: {key!r} is missing ({len(shapes)} tensors in the file)")
    shape = shapes[key]
    if not -len(shape) <= index < len(shape) or not shape[index]:
        raise ValueError(f"not {where}: {key!r} has shape {list(shape)}")
    return shape[index]


def input_channels(shapes: Shapes) -> int:
    """Return the number of input channels of a Wan transformer, including those of images and masks.

    ``ValueError`` as for ``axis``, and when ``patch_embedding.weight`` is not that of a convolution.
    """
    channels = axis(shapes, "patch_embedding.weight", 1, "a Wan transformer")
    shape = shapes["patch_embedding.weight"]
    if len(shape) == 2:
        raise ValueError(
            f"patch_embedding.weight is {list(shape)}, a linear layer, where a Wan transformer has a convolution "
            f"[{shape[0]}, channels, 1, 2, 2]; the order of the {shape[1]} values of a patch is unknown: convert the "
            "network with the program that created it"
        )
    if len(shape) != 5:
        raise ValueError(
            f"patch_embedding.weight is {list(shape)}, where a Wan transformer has a convolution "
            f"[{shape[0]}, channels, 1, 2, 2]"
        )
    return channels


def count_name(parameters: int) -> str:
    """Format a parameter count as a short name: 164k, 12m, 1.4b."""
    for unit, letter in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.{1 if parameters < 10 * unit else 0}f}{letter}"
    return str(parameters)
