"""Residency of units: arithmetic on sizes in bytes, shared by forecasts and runs. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from attrs import frozen

_GOLDEN = (sqrt(5) - 1) / 2


@frozen(kw_only=True)
class Residency:
    """The units of a component that stay in a memory while it runs, and the bytes this takes."""

    #: indices of the resident units
    stay: frozenset[int]
    #: bytes transferred in every pass
    streamed: int
    #: bytes of the buffers for streamed units
    buffers: int
    #: resident bytes: units, and the tensors used in every call
    held: int

    @property
    def total(self) -> int:
        """Return the bytes of buffers and resident weights."""
        return self.buffers + self.held


def plan_residency(sizes: Sequence[int], rest: int, allowance: int | None, buffers: int) -> Residency:
    """Keep as many units resident as fit into ``allowance`` bytes, spread evenly over the running order.

    Even spacing leaves time to transfer the streamed units between resident ones. Without an allowance all units are
    streamed. ``buffers`` is the number of units in transfer, capped at the number of units. An allowance smaller than
    ``rest`` and the buffers is exceeded: they are the minimum.
    """
    total = sum(sizes)
    if allowance is not None and rest + total <= allowance:
        return Residency(stay=frozenset(range(len(sizes))), streamed=0, buffers=0, held=rest + total)
    room = min(buffers, len(sizes)) * max(sizes, default=0)
    free = -1 if allowance is None else allowance - rest - room
    stay, held = set(), 0
    for index in sorted(range(len(sizes)), key=lambda index: (index * _GOLDEN) % 1.0):
        if held + sizes[index] <= free:
            stay.add(index)
            held += sizes[index]
    return Residency(stay=frozenset(stay), streamed=total - held, buffers=room, held=rest + held)


def allowance(limit: int | None, activations: int) -> int | None:
    """Return the bytes that a limit leaves for weights; ``None`` without a limit."""
    return None if limit is None else max(limit - activations, 0)
