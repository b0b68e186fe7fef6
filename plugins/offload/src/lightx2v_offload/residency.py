"""What stays where: arithmetic on sizes in bytes, the same for a forecast and for a run. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from attrs import frozen

_GOLDEN = (sqrt(5) - 1) / 2


@frozen(kw_only=True)
class Residency:
    """Which units of a component stay in a memory while it is at work, and what that takes."""

    #: numbers of the units that stay
    stay: frozenset[int]
    #: bytes that come and go
    streamed: int
    #: bytes of the buffers these go through
    buffers: int
    #: bytes that stay: units, and what is used in every call
    held: int

    @property
    def total(self) -> int:
        return self.buffers + self.held


def plan_residency(sizes: Sequence[int], rest: int, allowance: int | None, buffers: int) -> Residency:
    """As many units as fit into ``allowance`` stay, spread evenly, so that what comes in between has time to come.

    Without an allowance none stays. ``buffers`` is how many units may be on their way; never more than there are. An
    allowance that is too small for that is exceeded: this is the least that is possible.
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
    """What a limit leaves for weights."""
    return None if limit is None else max(limit - activations, 0)
