"""The device of a run is found without torch, and what cannot be used is an error that says why."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightx2v_core.api import Device, RequestError
from lightx2v_core.plan import device
from lightx2v_core.plan.device import probe
from lightx2v_core.testing import assert_light_import, heavy_imports


class FakeDriver:
    """A CUDA driver library with given devices: (name, capability, bytes)."""

    def __init__(self, *devices: tuple[str, tuple[int, int], int], status: int = 0) -> None:
        self.devices, self.status = devices, status

    def cuInit(self, _flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = len(self.devices)
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:
        out._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, handle: Any) -> int:
        out._obj.value = self.devices[handle.value][1][{75: 0, 76: 1}[attribute]]
        return 0

    def cuDeviceGetName(self, out: Any, size: int, handle: Any) -> int:
        out.value = self.devices[handle.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, handle: Any) -> int:
        out._obj.value = self.devices[handle.value][2]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that torch is a CUDA build and that this driver is installed."""

    def install(found: FakeDriver | OSError) -> None:
        def open_library(_name: str) -> FakeDriver:
            if isinstance(found, OSError):
                raise found
            return found

        monkeypatch.setattr(device, "torch_has_cuda", lambda: True)
        monkeypatch.setattr(ctypes, "CDLL", open_library)

    return install


H100 = ("NVIDIA H100", (9, 0), 80 << 30)
T4 = ("Tesla T4", (7, 5), 15 << 30)


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cpu:0", "auto:1", "", "cuda:0 "]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(RequestError, match="unknown device .*; use auto, cpu, cuda or cuda:N"):
        probe(name)


def test_cpu() -> None:
    found, why = probe("cpu")
    assert (found.kind, found.capability, found.torch_name, why) == ("cpu", (0, 0), "cpu", "requested")
    assert 64 << 20 < found.memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_cpu_build_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "torch_has_cuda", lambda: False)
    with pytest.raises(
        RequestError, match=r"device 'cuda:1' cannot be used: .* without CUDA; use --device cpu"
    ):
        probe("cuda:1")
    found, why = probe("auto")
    assert found.kind == "cpu"
    assert why.startswith("auto: the installed torch ")


def test_no_torch_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(device.util, "find_spec", lambda _name: None)
    assert probe()[1] == "auto: torch is not installed"


def test_no_driver(driver: Any) -> None:
    driver(OSError("libcuda.so.1: cannot open shared object file"))
    assert probe()[1] == "auto: no NVIDIA driver is installed"
    with pytest.raises(RequestError, match="no NVIDIA driver is installed"):
        probe("cuda")


@pytest.mark.parametrize(
    ("status", "reason"), [(100, "no CUDA device is visible"), (803, "the NVIDIA driver reports error 803")]
)
def test_a_driver_that_does_not_start(driver: Any, status: int, reason: str) -> None:
    driver(FakeDriver(status=status))
    assert probe()[1] == f"auto: {reason}"


def test_no_device(driver: Any) -> None:
    driver(FakeDriver())
    assert probe()[1] == "auto: no CUDA device is visible"


def test_devices_by_number(driver: Any) -> None:
    driver(FakeDriver(H100, T4))
    first = Device(kind="cuda", index=0, name="NVIDIA H100", capability=(9, 0), memory=80 << 30)
    assert probe("auto") == (first, "auto: a CUDA device is available")
    assert probe("cuda") == (first, "requested")
    second, _ = probe("cuda:1")
    assert (second.name, second.capability, second.memory) == T4
    assert second.torch_name == "cuda:1"
    with pytest.raises(RequestError, match="there are 2 CUDA devices, numbered from 0"):
        probe("cuda:2")


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("cuda = '12.4'\n", True),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.3'\n", False),
        ("cuda = None\n", False),
        ("debug = False\n", False),
        (None, False),
    ],
)
def test_the_version_file_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, built: bool
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(text)
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(device.util, "find_spec", lambda _name: spec)
    assert device.torch_has_cuda() is built


def test_the_version_file_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    assert device.torch_has_cuda() is (torch.version.cuda is not None)


def test_a_container_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(device, "LIMITS", (str(tmp_path / "absent"), str(limit)))
    for text, memory in (("max\n", total), ("1048576\n", 1 << 20), (f"{total * 4}\n", total)):
        limit.write_text(text)
        assert device.host_memory() == memory


def test_probing_imports_no_torch() -> None:
    assert_light_import("lightx2v_core.plan.device")
    assert heavy_imports("from lightx2v_core.plan.device import probe; probe()") == []
