"""The contract suites on everything that the core brings."""

from __future__ import annotations

from typing import ClassVar

from lightx2v_core.testing.contracts import (
    AttentionContract,
    LoraApplierContract,
    OffloaderContract,
    QuantizerContract,
    SchedulerContract,
    WeightLoaderContract,
)


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


class TestResident(OffloaderContract):
    use = "core/none"


class TestSequential(OffloaderContract):
    use = "core/sequential"


class TestMerge(LoraApplierContract):
    use = "core/merge"


class TestDynamic(LoraApplierContract):
    use = "core/dynamic"


class TestDequant(QuantizerContract):
    use = "core/dequant"


class TestFp8Torch(QuantizerContract):
    use = "core/fp8-torch"


class TestInt8Torch(QuantizerContract):
    use = "core/int8-torch"


class TestDequantMakes(QuantizerContract):
    use = "core/dequant"
    options: ClassVar = {"format": "int8-channel"}
