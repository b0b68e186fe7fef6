"""What every offloader must do, for each granularity."""

from lightx2v_core.testing.contracts import OffloaderContract


class TestCpuModel(OffloaderContract):
    use = "cpu"
    options = {"granularity": "model"}  # noqa: RUF012


class TestCpuBlock(OffloaderContract):
    use = "cpu"


class TestCpuPhase(OffloaderContract):
    use = "cpu"
    options = {"granularity": "phase", "slots": 3}  # noqa: RUF012


class TestDiskBlock(OffloaderContract):
    use = "disk"


class TestDiskPhase(OffloaderContract):
    use = "disk"
    options = {"granularity": "phase", "workers": 1, "ring": 2}  # noqa: RUF012
