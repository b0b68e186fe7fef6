"""What components take, as data: forecasts of models, what offloaders are asked, and what they answer."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class MemoryNeed:
    """A forecast of one component: bytes of its weights when loaded, and of activations at their peak."""

    weights: int
    activations: int


@frozen(kw_only=True)
class Workload:
    """A component as the forecast of an offloader sees it. Sizes in bytes."""

    name: str
    #: on the device, in the dtypes that are computed in; activations at their peak come on top
    weights: int
    activations: int = 0
    #: weights of each block, in running order; the rest of the weights is used in every call
    blocks: tuple[int, ...] = ()
    #: calls in each denoising step; 0 for what runs before or after them. Components with calls take turns.
    passes: int = 0
    #: seconds of computing of one call; 0 when unknown
    seconds: float = 0.0
    #: bytes of its largest stored tensor
    largest: int = 0
    #: whether the weights are used as they are stored; if not, a disk has to hold a copy of what is computed from them
    direct: bool = True


@frozen(kw_only=True)
class OffloadForecast:
    """What components take under an offloader, at the peak of each. Sizes in bytes."""

    #: weights on the device, and the activations on top of these at the peak
    weights: int
    activations: int
    #: host memory besides the device's, without what the process takes anyway
    host: int = 0
    #: copied to the device or read from a disk in each denoising step
    moved: int = 0
    #: seconds of a step that moving adds to computing
    exposed: float = 0.0
    #: seconds of a request that moving takes outside of its steps
    switching: float = 0.0
    #: disk space for computed weights
    scratch: int = 0
    #: for people, such as ``12 of 40 blocks stay on the device``
    detail: str = ""
