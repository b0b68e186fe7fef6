"""The contract of LoRA appliers, and the limit."""

from __future__ import annotations

import pytest
import torch
from lightx2v_core.api import Adapter, Change
from lightx2v_core.testing.contracts import LoraApplierContract
from lightx2v_core.testing.sources import MemorySource

from lightx2v_example.bounded import BoundedMerge


class TestLoraApplier(LoraApplierContract):
    use = "pebble"


@pytest.mark.parametrize(("limit", "size"), [(None, 10.0), (20.0, 10.0), (0.25, 0.25)])
def test_changes_have_a_limit(limit: float | None, size: float) -> None:
    """Limits are fractions of the norm of the weight."""
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    added = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    added *= 10 * weight.norm() / added.norm()
    change = Change(target="w", kind="diff", tensors={"diff": "d"}, shape=(8, 8))
    adapter = Adapter(source=MemorySource({"d": added}), changes=(change,))
    merged = BoundedMerge(limit).merged(MemorySource({"w": weight}), [adapter]).read("w")
    torch.testing.assert_close(merged - weight, added * size / 10, atol=1e-4, rtol=1e-4)
