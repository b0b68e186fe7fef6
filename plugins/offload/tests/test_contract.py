"""The contract of offloaders, in every granularity."""

from typing import ClassVar

from lightx2v_core.testing.contracts import OffloaderContract


class TestCpuModel(OffloaderContract):
    use = "offload/cpu"
    options: ClassVar = {"granularity": "model"}


class TestCpuBlock(OffloaderContract):
    use = "offload/cpu"
    options: ClassVar = {"granularity": "block"}


class TestCpuPhase(OffloaderContract):
    use = "offload/cpu"
    options: ClassVar = {"granularity": "phase"}


class TestDiskBlock(OffloaderContract):
    use = "offload/disk"


class TestDiskPhase(OffloaderContract):
    use = "offload/disk"
    options: ClassVar = {"granularity": "phase"}
