"""The contract suites on everything that the core brings."""

from __future__ import annotations

from typing import ClassVar

from lightx2v_core.testing.contracts import AttentionContract, SchedulerContract, WeightLoaderContract


class TestSdpa(AttentionContract):
    use = "core/sdpa"


class TestUniPC(SchedulerContract):
    use = "core/unipc"


class TestDPMSolver(SchedulerContract):
    use = "core/dpm++"


class TestEuler(SchedulerContract):
    use = "core/euler"


class TestEulerOnTheOtherGrid(SchedulerContract):
    use = "core/euler"
    options: ClassVar = {"grid": "unipc"}


class TestDistill(SchedulerContract):
    use = "core/distill"


class TestSafetensors(WeightLoaderContract):
    use = "core/safetensors"


class TestTorch(WeightLoaderContract):
    use = "core/torch"
