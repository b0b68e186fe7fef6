"""Contract suites with knowledge about this plugin.

``lightx2v-core plugins check NAME --strict`` runs the suites of this module in place of the plain ones; nothing else
imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from lightx2v_core.testing.contracts import WeightLoaderContract

if TYPE_CHECKING:
    from torch import Tensor


class ArchiveContract(WeightLoaderContract):
    """The contract of weight loaders, with archives written by numpy."""

    use = "pebble"

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors with ``numpy.savez``."""
        arrays: dict[str, Any] = {name: array(tensor) for name, tensor in tensors.items()}
        numpy.savez(path, **arrays)


def array(tensor: Tensor) -> numpy.typing.NDArray[numpy.generic]:
    """Convert a tensor to an array; bfloat16 becomes ``V2``, as numpy has no such dtype."""
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("V2")
    return tensor.numpy()
