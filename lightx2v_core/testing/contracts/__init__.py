"""Contracts of every kind of implementation, as test suites to inherit from. They need pytest.

from lightx2v_core.testing.contracts import AttentionContract

class TestMine(AttentionContract):
    use = "mine"
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in (
            "attention",
            "checkpoint",
            "command",
            "common",
            "lora_applier",
            "model",
            "offloader",
            "quantizer",
            "scheduler",
            "weight_loader",
        )
    )
)

from lightx2v_core.testing.contracts.attention import AttentionContract  # noqa: E402
from lightx2v_core.testing.contracts.checkpoint import CheckpointContract  # noqa: E402
from lightx2v_core.testing.contracts.command import CommandContract  # noqa: E402
from lightx2v_core.testing.contracts.common import Contract  # noqa: E402
from lightx2v_core.testing.contracts.lora_applier import LoraApplierContract  # noqa: E402
from lightx2v_core.testing.contracts.model import ModelContract  # noqa: E402
from lightx2v_core.testing.contracts.offloader import OffloaderContract  # noqa: E402
from lightx2v_core.testing.contracts.quantizer import QuantizerContract  # noqa: E402
from lightx2v_core.testing.contracts.scheduler import SchedulerContract  # noqa: E402
from lightx2v_core.testing.contracts.weight_loader import WeightLoaderContract  # noqa: E402

#: kind of implementation -> its suite
SUITES: Mapping[str, type[Contract]] = {
    suite.kind: suite
    for suite in (
        WeightLoaderContract,
        QuantizerContract,
        AttentionContract,
        OffloaderContract,
        LoraApplierContract,
        SchedulerContract,
        ModelContract,
        CommandContract,
        CheckpointContract,
    )
}

__all__ = [
    "SUITES",
    "AttentionContract",
    "CheckpointContract",
    "CommandContract",
    "Contract",
    "LoraApplierContract",
    "ModelContract",
    "OffloaderContract",
    "QuantizerContract",
    "SchedulerContract",
    "WeightLoaderContract",
]
