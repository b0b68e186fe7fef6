"""The options of both offloaders."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs import validators as v

#: ``model``: a component as a whole; ``block``: its blocks one by one; ``phase``: their parts one by one
Granularity = Literal["model", "block", "phase"]


@frozen(kw_only=True)
class CpuOptions:
    """Options of the ``cpu`` offloader."""

    #: what moves at once: ``model``, a whole component; ``block``; or ``phase``, a part of a block
    granularity: Granularity = "block"
    #: blocks (or phases) on the device at once, beside those that stay there
    slots: int = field(default=2, validator=[v.ge(2), v.le(64)])
    #: lock the weights in memory: copies are fast and run beside computing; off where the system allows too little
    pin: bool = True


@frozen(kw_only=True)
class DiskOptions:
    """Options of the ``disk`` offloader."""

    #: what moves at once: ``block``, or ``phase``, a part of one
    granularity: Literal["block", "phase"] = "block"
    #: blocks (or phases) on the device at once, beside those that stay there
    slots: int = field(default=2, validator=[v.ge(2), v.le(64)])
    #: threads that read
    workers: int = field(default=4, validator=[v.ge(1), v.le(64)])
    #: blocks (or phases) in host memory at once, beside those that ``ram_limit`` has room for
    ring: int = field(default=3, validator=[v.ge(2), v.le(64)])
    #: read through the system's cache of files: faster where they fit into it and stay there; else past it
    cached: bool = False
    #: lock the ring in memory: copies are fast and run beside computing; off where the system allows too little
    pin: bool = True
    #: folder for weights that had to be computed, such as merged ones; absent: the system's folder for such files
    scratch: str | None = None
    #: leave the scratch files there, as safetensors files; they are not read by another run
    keep_scratch: bool = False
