"""Detection of the device without importing torch: a plan must take a fraction of a second.

The CUDA driver is queried through its C library. A file of torch's installation tells whether it is a CUDA build.
"""

from __future__ import annotations

import ctypes
import os
import re
from importlib import metadata, util
from pathlib import Path

from lightx2v_core.errors import RequestError
from lightx2v_core.spec.context import Device

_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76
_NO_DEVICE = 100
#: files with a container's memory limit, cgroup v2 and v1
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def probe(want: str = "auto") -> tuple[Device, str]:
    """Return the device that ``want`` (``auto``, ``cpu``, ``cuda`` or ``cuda:N``) selects, and the reason.

    Raises ``RequestError`` if a requested device is not available.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", want)
    if match is None:
        raise RequestError(f"unknown device {want!r}; use auto, cpu, cuda or cuda:N")
    if want == "cpu":
        return _cpu(), "requested"
    index = int(match.group(1) or 0)
    cuda = cuda_device(index)
    if isinstance(cuda, Device):
        return cuda, "requested" if want != "auto" else "auto: a CUDA device is available"
    if want == "auto":
        return _cpu(), f"auto: {cuda}"
    raise RequestError(f"device {want!r} cannot be used: {cuda}; use --device cpu or auto")


def compute_dtype(want: str, where: Device) -> tuple[str, str]:
    """Return the compute dtype that ``want`` (``auto`` or a name) selects on a device, and the reason."""
    if want != "auto":
        return want, "requested"
    if where.kind == "cpu":
        return "float32", "auto: fast and exact on CPUs"
    if where.capability >= (8, 0):
        return "bfloat16", "auto: the dtype the models were trained in"
    return "float16", f"auto: {where.name} computes bfloat16 slowly"


def cuda_device(index: int) -> Device | str:
    """Query the driver for CUDA device ``index``. Returns a text with the reason if it cannot be used."""
    if not torch_has_cuda():
        try:
            return f"the installed torch {metadata.version('torch')} is built without CUDA"
        except metadata.PackageNotFoundError:
            return "torch is not installed"
    try:
        cuda = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return "no NVIDIA driver is installed"
    status = cuda.cuInit(0)
    if status not in (0, _NO_DEVICE):
        return f"the NVIDIA driver reports error {status}"
    count, handle, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_DEVICE or count.value == 0:
        return "no CUDA device is visible"
    if index >= count.value:
        return f"there are {count.value} CUDA devices, numbered from 0"
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    capability = []
    for attribute in (_COMPUTE_MAJOR, _COMPUTE_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    return Device(
        kind="cuda",
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(capability[0], capability[1]),
        memory=memory.value,
    )


def torch_has_cuda() -> bool:
    """Return True if the installed torch is a CUDA build. Reads torch's ``version.py`` instead of importing it."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    if not version.is_file():
        return False
    built = re.search(r"^cuda\b[^=\n]*=\s*(.+)$", version.read_text(encoding="utf-8"), re.MULTILINE)
    return built is not None and built.group(1).strip() != "None"


def host_memory() -> int:
    """Return the memory of this machine in bytes, within a container's limit; 0 if unknown."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
    for path in LIMITS:
        try:
            limit = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            return min(total, int(limit))
    return total


def _cpu() -> Device:
    return Device(kind="cpu", name="CPU", memory=host_memory())
