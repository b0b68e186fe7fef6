"""Parameters of the contract tests. Imported by ``lightx2v-core plugins check gguf --strict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from lightx2v_core.testing.contracts import QuantizerContract, WeightLoaderContract

if TYPE_CHECKING:
    from torch import Tensor


class FilesContract(WeightLoaderContract):
    """Contract of the loader, on files from the reference package; skipped without that package (extra ``test``)."""

    use = "gguf"

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors unpacked; bfloat16 as bytes, since numpy has no such dtype."""
        import torch

        gguf = pytest.importorskip("gguf", reason="the reference package is not installed")
        writer = gguf.GGUFWriter(str(path), "wan")
        for name, tensor in tensors.items():
            if tensor.dtype == torch.bfloat16:
                data = tensor.contiguous().view(torch.uint8).numpy()
                writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the contract without scalars, which the format does not have."""
        return {name: tensor for name, tensor in super().tensors().items() if tensor.dim()}


class PackedContract(QuantizerContract):
    """Contract of the quantizer, with bounds for the rounding of 8-bit and 5-bit blocks."""

    use = "gguf"
    rounding: ClassVar[Mapping[str, float]] = {
        **QuantizerContract.rounding,
        "gguf-q8_0": 0.01,
        "gguf-q5": 0.05,
    }
