"""The environment that implementations are built for: device, dtype and memory budget."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen(kw_only=True)
class Device:
    """The device of a run, probed once by the core."""

    #: ``cpu`` or ``cuda``
    kind: str = "cpu"
    #: CUDA device index; 0 for ``cpu``
    index: int = 0
    #: product name, such as ``NVIDIA H100 80GB HBM3``
    name: str = "CPU"
    #: CUDA compute capability, (0, 0) elsewhere
    capability: tuple[int, int] = (0, 0)
    #: memory of the device in bytes (of the machine for ``cpu``); 0 if unknown
    memory: int = 0

    @property
    def torch_name(self) -> str:
        """Return the device name for torch, such as ``cuda:0``."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@frozen(kw_only=True)
class Budget:
    """Memory limits of the components of one offloader, in bytes, activations included. ``None``: no limit.

    On a ``cpu`` device both limits apply to the same memory, and ``device`` and ``host`` are equal.
    """

    #: limit of device memory
    device: int | None = None
    #: limit of host memory
    host: int | None = None
    #: planned host memory of the process without weights, in bytes; ``host`` already excludes it
    process: int = 0
    #: component -> bytes of its activations at the peak
    activations: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Speeds:
    """Throughput figures for time forecasts."""

    #: bytes per second from host to device
    copy: float = 25e9
    #: bytes per second from disk
    disk: float = 2e9
    #: floating-point operations per second
    compute: float = 1e14


@frozen(kw_only=True)
class BuildContext:
    """The arguments that every ``build`` and ``unusable`` may depend on."""

    device: Device = field(factory=Device)
    #: compute dtype, as a torch name
    dtype: str = "float32"
    #: memory limits, for offloaders only
    budget: Budget = field(factory=Budget)
    #: throughput of the machine, for forecasts
    speeds: Speeds = field(factory=Speeds)
