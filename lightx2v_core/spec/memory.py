"""Memory requirements as data: forecasts of models, and the input and output of offloader forecasts."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class MemoryNeed:
    """The memory forecast of one component, in bytes."""

    #: loaded weights
    weights: int
    #: activations at their peak, on top of the weights
    activations: int


@frozen(kw_only=True)
class Workload:
    """A component as seen by the forecast of an offloader. Sizes in bytes."""

    #: the component, such as ``dit``
    name: str
    #: weights on the device, in the compute dtypes; includes ``blocks``
    weights: int
    #: activations at their peak, on top of ``weights``
    activations: int = 0
    #: weights of each block, in execution order; all other weights are used in every call
    blocks: tuple[int, ...] = ()
    #: calls per denoising step; 0 for components that run before or after denoising. Denoising components run in turn
    passes: int = 0
    #: compute time of one call in seconds; 0 if unknown
    seconds: float = 0.0
    #: its largest stored tensor
    largest: int = 0
    #: whether the weights are used as stored; otherwise offloading to disk needs a copy of the computed ones
    direct: bool = True


@frozen(kw_only=True)
class OffloadForecast:
    """Peak memory use and added time of components under an offloader. Sizes in bytes."""

    #: weights on the device
    weights: int
    #: activations at the peak, on top of ``weights``
    activations: int
    #: host memory, excluding device memory and the base use of the process
    host: int = 0
    #: bytes copied to the device or read from disk per denoising step
    moved: int = 0
    #: seconds per step of transfers not hidden behind compute
    exposed: float = 0.0
    #: seconds per request of transfers outside the denoising steps
    switching: float = 0.0
    #: disk space for computed weights
    scratch: int = 0
    #: human-readable description, such as ``12 of 40 blocks stay on the device``
    detail: str = ""
