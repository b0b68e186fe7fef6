"""Options of the two offloaders."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs import validators as v

#: ``model``: whole components; ``block``: single blocks; ``phase``: parts of a block
Granularity = Literal["model", "block", "phase"]


@frozen(kw_only=True)
class CpuOptions:
    """Options of the ``cpu`` offloader."""

    #: unit of transfer: ``model``, a whole component; ``block``; or ``phase``, a part of a block
    granularity: Granularity = "block"
    #: buffers on the device for blocks (or phases), in addition to the resident ones
    slots: int = field(default=2, validator=[v.ge(2), v.le(64)])
    #: pin the weights in host memory: copies are faster and overlap with computation; false if the limit is too low
    pin: bool = True


@frozen(kw_only=True)
class DiskOptions:
    """Options of the ``disk`` offloader."""

    #: unit of transfer: ``block``, or ``phase``, a part of a block
    granularity: Literal["block", "phase"] = "block"
    #: buffers on the device for blocks (or phases), in addition to the resident ones
    slots: int = field(default=2, validator=[v.ge(2), v.le(64)])
    #: reader threads
    workers: int = field(default=4, validator=[v.ge(1), v.le(64)])
    #: blocks (or phases) in the ring of host memory, in addition to those that fit into ``ram_limit``
    ring: int = field(default=3, validator=[v.ge(2), v.le(64)])
    #: read through the page cache: faster where the files fit into it and stay there; false: direct I/O
    cached: bool = False
    #: pin the ring in host memory: copies are faster and overlap with computation; false if the limit is too low
    pin: bool = True
    #: folder for computed weights, such as merged ones; absent: the system's folder for temporary files
    scratch: str | None = None
    #: keep the scratch files, as safetensors files; later runs do not read them
    keep_scratch: bool = False
