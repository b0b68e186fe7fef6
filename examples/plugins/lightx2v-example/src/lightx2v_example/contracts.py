"""What the contract suites cannot know by themselves. ``lightx2v-core plugins check NAME --strict`` takes the suites of
this module in place of its own; nothing else imports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from lightx2v_core.testing.contracts import WeightLoaderContract

if TYPE_CHECKING:
    from torch import Tensor


class ArchiveContract(WeightLoaderContract):
    """The archives are those that numpy writes."""

    use = "pebble"

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as a user of numpy does."""
        arrays: dict[str, Any] = {name: array(tensor) for name, tensor in tensors.items()}
        numpy.savez(path, **arrays)


def array(tensor: Tensor) -> numpy.typing.NDArray[numpy.generic]:
    """A tensor as an array; numpy knows bfloat16 as two bytes."""
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("V2")
    return tensor.numpy()
