"""The contracts of the loader and the quantizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lightx2v_core.testing.contracts import QuantizerContract, WeightLoaderContract


class TestFiles(WeightLoaderContract):
    use = "gguf/gguf"

    @pytest.fixture(autouse=True)
    def _written_by_the_reference(self, write: Callable[..., None]) -> None:
        self._write = write

    def write(self, path: Path, tensors: Mapping[str, Any]) -> None:
        self._write(path, tensors)

    def tensors(self) -> dict[str, Any]:
        """Drop scalars, which the format does not have."""
        return {name: tensor for name, tensor in super().tensors().items() if tensor.dim()}


class TestPacked(QuantizerContract):
    use = "gguf/gguf"
    rounding: ClassVar = {**QuantizerContract.rounding, "gguf-q8_0": 0.01, "gguf-q5": 0.05}


class TestPackedOnLoad(QuantizerContract):
    use = "gguf/gguf"
    options: ClassVar = {"format": "gguf-q4_0"}
    in_safetensors = False
