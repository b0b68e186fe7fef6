"""What the contracts have to be told. Imported by ``lightx2v-core plugins check gguf --strict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from lightx2v_core.testing.contracts import QuantizerContract, WeightLoaderContract

if TYPE_CHECKING:
    from torch import Tensor


class FilesContract(WeightLoaderContract):
    """Files that the reference package wrote; skipped where it is not installed (extra ``test``)."""

    use = "gguf"

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Plain tensors; numpy has no bfloat16, so its bytes are written."""
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
        """The format has no scalars."""
        return {name: tensor for name, tensor in super().tensors().items() if tensor.dim()}


class PackedContract(QuantizerContract):
    """Blocks of 5 bits round a little more than those of 8."""

    use = "gguf"
    rounding: ClassVar[Mapping[str, float]] = {
        **QuantizerContract.rounding,
        "gguf-q8_0": 0.01,
        "gguf-q5": 0.05,
    }
