"""The offloader behind ``cpu`` and ``disk``: splits components into units and streams these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from lightx2v_core.api import ModuleWeights, RunError
from lightx2v_offload.residency import Residency
from lightx2v_offload.stores import Store
from lightx2v_offload.streams import Stream
from lightx2v_offload.units import Unit, divide

if TYPE_CHECKING:
    from torch import nn

#: name of a component, bytes of its units in running order, bytes of the rest -> residency
Policy = Callable[[str, Sequence[int], int], Residency]
#: name of a component -> limit in bytes for it and the resident units of others; None: only its own stay
Room = Callable[[str], int | None]


@define(eq=False)
class Part:
    """A component after ``place``."""

    name: str
    rest: Unit
    #: in the order of the last complete pass
    units: list[Unit]
    stay: frozenset[Unit]
    total: int
    #: bytes of the largest streamed unit
    largest: int
    hooks: list[Any] = field(factory=list)

    @property
    def order(self) -> list[Unit]:
        """Return all units in running order, the rest first."""
        return [self.rest, *self.units]


Keep = Callable[[Part], None]


class BlockOffloader:
    """An ``Offloader`` with resident and streamed units.

    While a component runs, the units that the policy selects are resident; the others are streamed through a few
    buffers. When another component starts, the resident units that no longer fit are released.
    """

    def __init__(
        self, stream: Stream, store: Store, *, granularity: str, policy: Policy, room: Room, keep: Keep
    ) -> None:
        self._stream, self._store = stream, store
        self._granularity, self._policy, self._room, self._keep = granularity, policy, room, keep
        self._parts: dict[str, Part] = {}
        #: components with resident units, the most recently used last
        self._present: list[Part] = []
        self._following: str | None = None
        self._ran: list[Unit] = []
        #: the current use; closing an older one that was left open, such as a generator's, has no effect
        self._use: object | None = None

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        granularity = "block" if self._granularity == "model" else self._granularity
        rest, units = divide(module, weights, blocks, granularity)
        residency = self._policy(component, [unit.nbytes for unit in units.values()], rest.nbytes)
        order = list(units.values())
        stay = frozenset(order[index] for index in residency.stay)
        part = Part(
            name=component,
            rest=rest,
            units=order,
            stay=stay | {rest},
            total=residency.total,
            largest=max((unit.nbytes for unit in order if unit not in stay), default=0),
        )
        self._store.add(part.order, weights)
        for prefix, unit in units.items():
            owner = module.get_submodule(prefix)
            part.hooks.append(owner.register_forward_pre_hook(partial(self._enter, unit)))
            part.hooks.append(owner.register_forward_hook(partial(self._leave, unit)))
        self._parts[component] = part

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        part, use = self._parts[component], object()
        if self._use is not None:
            self._stream.end()
        self._use = use
        try:
            self._begin(part)
            yield
            if self._use is use and len(self._ran) == len(part.units) == len({*self._ran, *part.units}):
                part.units = list(self._ran)
        finally:
            if self._use is use:
                self._use = None
                self._stream.end()

    def prepare(self, component: str) -> None:
        self._following = component

    def refresh(self, component: str, names: Collection[str]) -> None:
        part = self._parts[component]
        # weights on the device or in transfer are out of date; the next use transfers all of them again
        self._stream.stay(())
        self._stream.resize(0)
        self._present.clear()
        self._store.refresh([unit for unit in part.order if unit.holds(names)], names)

    def close(self) -> None:
        hooks = [hook for part in self._parts.values() for hook in part.hooks]
        self._parts.clear()
        self._present.clear()
        for hook in hooks:
            hook.remove()
        try:
            # dead readers never finish, so there is nothing to wait for; the store releases their buffers
            with suppress(RunError):
                self._stream.close()
        finally:
            self._store.close()

    def _begin(self, part: Part) -> None:
        if self._present[-1:] != [part]:
            self._switch(part)
        following = self._parts.get(self._following or "", part)
        # of another component, only streamed units: its resident ones have no room yet
        after = part.order if following is part else [u for u in following.units if u not in following.stay]
        self._following = None
        self._ran = []
        self._stream.begin(part.order, after)
        self._stream.enter(part.rest)

    def _switch(self, part: Part) -> None:
        """Make ``part`` resident with as many earlier components as fit, the most recently used first."""
        others = [other for other in self._present if other is not part]
        room = self._room(part.name)
        while others and (room is None or part.total + sum(other.total for other in others) > room):
            others.pop(0)
        self._present = [*others, part]
        self._stream.stay({unit for present in self._present for unit in present.stay})
        self._keep(part)
        self._stream.resize(max(placed.largest for placed in self._parts.values()) if part.largest else 0)

    def _enter(self, unit: Unit, _module: Any, _inputs: Any) -> None:
        self._ran.append(unit)
        self._stream.enter(unit)

    def _leave(self, unit: Unit, _module: Any, _inputs: Any, _output: Any) -> None:
        self._stream.leave(unit)
