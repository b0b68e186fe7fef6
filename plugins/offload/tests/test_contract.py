"""The contract of offloaders, for each granularity."""

import pytest
import torch
from attrs import evolve

from lightx2v_core import load
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import OffloaderContract
from lightx2v_offload import plugin
from lightx2v_offload.building import build_cpu, build_disk
from lightx2v_offload.late import LateDevice


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


class OnADevice(OffloaderContract):
    """The same with separate device memory, as on a GPU."""

    @pytest.fixture
    def spec(self, provided):
        build = {"cpu": build_cpu, "disk": build_disk}[self.use]
        return evolve(provided.spec, build=lambda options, ctx: build(options, ctx, LateDevice()))


class TestCpuOnADevice(OnADevice):
    use = "cpu"


class TestDiskOnADevice(OnADevice):
    use = "disk"
    options = {"ring": 2, "slots": 3}  # noqa: RUF012


class TestDiskPhaseOnADevice(OnADevice):
    use = "disk"
    options = {"granularity": "phase", "workers": 1, "ring": 2}  # noqa: RUF012


@pytest.mark.parametrize("use", ["cpu", "disk"])
def test_a_model_of_somebody_else_offloads_with_no_code_of_its_own(use, tmp_path):
    example = pytest.importorskip("lightx2v_example.plugin", reason="needs the example plugin")
    (spec,) = example.lightx2v_models()
    spec.write_tiny(tmp_path / "model", 0)
    plugins = plugin_set(example=example, offload=plugin)
    expected = load(tmp_path / "model", plugins=plugins).generate(prompt="a fox", seed=1)
    with load(tmp_path / "model", plugins=plugins, offloader=use) as pipeline:
        assert torch.equal(pipeline.generate(prompt="a fox", seed=1).frames, expected.frames)
