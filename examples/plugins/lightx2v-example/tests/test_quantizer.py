"""The contract of quantizers, and the number of rows in floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from lightx2v_core.api import LayerFormat, dequantize_weight
from lightx2v_core.testing.contracts import QuantizerContract
from lightx2v_core.testing.sources import MemorySource

from lightx2v_example.codes import FORMAT, RowCodes


class TestQuantizer(QuantizerContract):
    use = "pebble"


class TestQuantizerInPieces(QuantizerContract):
    """Pieces whose size does not divide the rows."""

    use = "pebble"
    options: ClassVar[Mapping[str, Any]] = {"rows": 5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_rows_than_asked_for_are_in_floats(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer, weight = RowCodes(7), torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    stored = quantizer.quantize(weight, FORMAT)
    source = MemorySource(stored)
    layer = LayerFormat(
        name="l", format=FORMAT, tensors={name: source.info(name) for name in stored}, shape=(32, 16)
    )
    module = quantizer.linear(torch.nn.Linear(16, 32, bias=False, dtype=dtype, device="meta"), layer)
    module.load_state_dict(stored, assign=True)
    rows: list[int] = []
    plain = torch.nn.functional.linear

    def watched(x: torch.Tensor, piece: torch.Tensor) -> torch.Tensor:
        rows.append(len(piece))
        return plain(x, piece)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    wanted = x.float() @ dequantize_weight(stored, FORMAT).T
    torch.testing.assert_close(module(x).float(), wanted, atol=0.1, rtol=0.02)
    assert rows == [7, 7, 7, 7, 4]
