"""What an implementation is built for: the device, the dtype, and the memory that there is for it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen(kw_only=True)
class Device:
    """The device of a run, probed once by the core."""

    #: ``cpu`` or ``cuda``
    kind: str = "cpu"
    index: int = 0
    name: str = "CPU"
    #: CUDA compute capability, (0, 0) elsewhere
    capability: tuple[int, int] = (0, 0)
    #: bytes of memory of the device (of the machine for ``cpu``); 0 when unknown
    memory: int = 0

    @property
    def torch_name(self) -> str:
        """The name torch knows it by, such as ``cuda:0``."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


@frozen(kw_only=True)
class Budget:
    """Bytes that the components of one offloader may take, activations included. ``None``: no limit. On a ``cpu``
    device both are limits of the same memory, and ``device`` and ``host`` are equal."""

    device: int | None = None
    host: int | None = None
    #: host bytes of the process without any weights, as planned: they are taken off ``host`` already
    process: int = 0
    #: component -> bytes of activations at its peak
    activations: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Speeds:
    """What forecasts of time go by: bytes a second from host to device and from disk, and operations a second."""

    copy: float = 25e9
    disk: float = 2e9
    compute: float = 1e14


@frozen(kw_only=True)
class BuildContext:
    """What every ``build`` and ``unusable`` may depend on."""

    device: Device = field(factory=Device)
    #: compute dtype, by torch's name
    dtype: str = "float32"
    #: for offloaders only
    budget: Budget = field(factory=Budget)
    speeds: Speeds = field(factory=Speeds)
