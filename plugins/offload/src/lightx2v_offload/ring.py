"""Store of weights in files: threads read the next units into a ring of buffers, ahead of the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from enum import Enum, auto
from threading import Condition, Thread

from attrs import define, field
from torch import Tensor

from lightx2v_core.api import LightX2VError, ModuleWeights, RunError
from lightx2v_offload.devices import Accelerator, Event
from lightx2v_offload.scratch import Scratch
from lightx2v_offload.units import Unit

#: bytes; smaller tensors share a job: reading a few kilobytes costs less than the hand-over to a thread
_JOB = 1 << 22
#: seconds between two checks that the readers are alive
_LOOK = 1.0

Read = Callable[[str, Tensor], None]


class State(Enum):
    EMPTY = auto()
    READING = auto()
    FULL = auto()
    LENT = auto()
    FAILED = auto()


@define(eq=False)
class Entry:
    """A buffer in host memory for one unit."""

    memory: Tensor
    unit: Unit | None = None
    state: State = State.EMPTY
    #: whether an expected use is already assigned; a second use of the unit in the plan needs another read
    claimed: bool = False
    #: number of unfinished jobs
    left: int = 0
    #: the end of the last use of its contents
    after: Event | None = None
    error: BaseException | None = None


@define(eq=False)
class Component:
    """Source of the tensors of a component: its files, and a scratch file for computed tensors."""

    weights: ModuleWeights
    computed: frozenset[str]
    #: whether reads go through the page cache
    cached: bool
    scratch: Scratch | None = field(default=None)

    def read(self, name: str, out: Tensor) -> None:
        if name in self.computed:
            assert self.scratch is not None
            self.scratch.read_into(name, out)
        else:
            self.weights.read_into(name, out, cached=self.cached)


class RingStore:
    """A store that reads units shortly before their use.

    Kept units have memory of their own; the others share a ring of ``entries`` buffers.
    """

    def __init__(
        self,
        device: Accelerator,
        *,
        entries: int,
        workers: int,
        cached: bool,
        scratch: Callable[[], tuple[str | None, str]],
    ) -> None:
        self._device = device
        self._count = entries
        self._workers = workers
        self._cached = cached
        self._scratch = scratch
        self._from: dict[Unit, Component] = {}
        self._entries: list[Entry] = []
        self._where: dict[Unit, Entry] = {}
        self._kept: frozenset[Unit] = frozenset()
        self._plan: deque[Unit] = deque()
        self._jobs: deque[tuple[Entry, Unit, range]] = deque()
        self._threads: list[Thread] = []
        self._stopped = False
        #: guards everything above
        self._change = Condition()

    def add(self, units: Sequence[Unit], weights: ModuleWeights) -> None:
        self._from.update(dict.fromkeys(units, self._component(units, weights)))

    def refresh(self, units: Sequence[Unit], names: Collection[str]) -> None:
        """Recompute the computed tensors of a component; the set of tensors that need computing may change."""
        if not units:
            return
        before = self._from[units[0]]
        members = [unit for unit, component in self._from.items() if component is before]
        with self._change:
            self._plan.clear()
            for unit in members:
                self._drop(unit)
        component = self._component(members, before.weights)
        self._from.update(dict.fromkeys(members, component))
        if before.scratch is not None:
            before.scratch.close()

    def _drop(self, unit: Unit) -> None:
        """Drop the bytes read for a unit."""
        while (entry := self._where.get(unit)) is not None and entry.state is State.READING:
            self._wait()
        if entry is None:
            return
        if entry in self._entries:
            self._empty(entry)
            return
        if entry.after is not None:
            entry.after.synchronize()
        self._device.free(entry.memory)
        del self._where[unit]

    def _component(self, units: Sequence[Unit], weights: ModuleWeights) -> Component:
        tensors = [tensor for unit in units for tensor in unit.tensors]
        computed = [tensor for tensor in tensors if not weights.direct(tensor.name)]
        component = Component(weights, frozenset(tensor.name for tensor in computed), self._cached)
        if computed:
            folder, keep = self._scratch()
            component.scratch = Scratch(computed, weights, folder, keep, cached=self._cached)
        return component

    def expect(self, units: Sequence[Unit]) -> None:
        with self._change:
            self._plan = deque(units)
            for entry in self._where.values():
                entry.claimed = False
            self._advance()

    def keep(self, units: Collection[Unit]) -> None:
        with self._change:
            self._kept = frozenset(units)
            for unit, entry in list(self._where.items()):
                if unit in self._kept or entry in self._entries:
                    continue
                while entry.state is State.READING:
                    self._wait()
                self._device.free(entry.memory)
                del self._where[unit]

    def ready(self, unit: Unit) -> bool:
        with self._change:
            entry = self._where.get(unit)
            return entry is not None and entry.state in (State.FULL, State.FAILED)

    def acquire(self, unit: Unit) -> Tensor:
        with self._change:
            while True:
                entry = self._where.get(unit)
                if entry is None:
                    self._start(unit, forced=True)
                elif entry.state is State.FULL:
                    entry.state = State.LENT
                    return entry.memory
                elif entry.state is State.FAILED:
                    raise self._failure(entry)
                else:
                    assert entry.state is State.READING, "the unit is lent already"
                if self._where.get(unit) is None or self._where[unit].state is State.READING:
                    self._wait()

    def release(self, unit: Unit, after: Event | None) -> None:
        with self._change:
            entry = self._where[unit]
            entry.after, entry.state = after, State.FULL
            if entry in self._entries:
                self._empty(entry)
            elif unit not in self._kept:
                if after is not None:
                    after.synchronize()  # a unit used in every call: a wait per component, not per block
                self._device.free(entry.memory)
                del self._where[unit]
            self._advance()

    def close(self) -> None:
        with self._change:
            self._stopped = True
            self._plan.clear()
            self._jobs.clear()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        # if a broken device fails to release one of them, the others are still released
        with ExitStack() as closing:
            for component in self._from.values():
                if component.scratch is not None:
                    closing.callback(component.scratch.close)
            for entry in {*self._where.values(), *self._entries}:
                closing.callback(self._device.free, entry.memory)
                if entry.after is not None:
                    closing.callback(entry.after.synchronize)
            self._where.clear()
            self._entries.clear()
            self._from.clear()

    def _advance(self) -> None:
        """Begin to read the next units of the plan, while there are free buffers."""
        while self._plan and not self._stopped:
            unit = self._plan[0]
            entry = self._where.get(unit)
            if entry is not None and entry.claimed and unit not in self._kept:
                return
            if entry is not None:
                entry.claimed = True
            elif not self._start(unit, forced=False):
                return
            self._plan.popleft()

    def _start(self, unit: Unit, *, forced: bool) -> bool:
        """Hand a unit to the readers. Returns ``False`` without a free buffer; ``forced`` evicts a later unit then."""
        if unit in self._kept or unit.common:
            entry = Entry(self._device.host(unit.nbytes))
        else:
            self._grow()
            free = next((entry for entry in self._entries if entry.state is State.EMPTY), None)
            if free is None:
                free = self._victim(forced)
            if free is None:
                return False
            entry = free
        jobs = _jobs(unit)
        entry.unit, entry.state, entry.left = unit, State.READING, len(jobs)
        entry.claimed, entry.error = True, None
        self._where[unit] = entry
        self._jobs.extend((entry, unit, job) for job in jobs)
        if not jobs:
            entry.state = State.FULL
        while len(self._threads) < self._workers:
            thread = Thread(target=self._work, name=f"lightx2v-reader-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._change.notify_all()
        return True

    def _grow(self) -> None:
        """Allocate the ring at its first use, with buffers for the largest unit."""
        # one by one: if one allocation fails, the earlier ones are recorded and released later
        while len(self._entries) < self._count:
            size = max(unit.nbytes for unit in self._from if not unit.common)
            self._entries.append(Entry(self._device.host(size)))

    def _victim(self, forced: bool) -> Entry | None:
        """Evict a unit that is not expected, or with ``forced`` any that is not in use, and return its buffer."""
        idle = [entry for entry in self._entries if entry.state in (State.FULL, State.FAILED)]
        victim = next((entry for entry in idle if not entry.claimed), None)
        if victim is None and forced:
            victim = idle[-1] if idle else None
        if victim is not None:
            self._empty(victim)
        return victim

    def _empty(self, entry: Entry) -> None:
        assert entry.unit is not None
        del self._where[entry.unit]
        entry.unit, entry.state = None, State.EMPTY

    def _failure(self, entry: Entry) -> LightX2VError:
        """Return the read error of a unit and reset its buffer, so that the next request reads again."""
        error, unit = entry.error, entry.unit
        if entry in self._entries:
            self._empty(entry)
        else:
            assert unit is not None
            self._device.free(entry.memory)
            del self._where[unit]
        if isinstance(error, LightX2VError):
            return error
        return RunError(f"cannot read the weights of {unit}: {type(error).__name__}: {error}")

    def _wait(self) -> None:
        """Wait until a change is signalled. Raises ``RunError`` when the store is closed or a reader has died."""
        if self._stopped:
            raise RunError("weights requested after the offloader was closed")
        self._change.wait(_LOOK)
        if self._threads and not all(thread.is_alive() for thread in self._threads):
            raise RunError("a reader thread of the offloader died; run again")

    def _work(self) -> None:
        """Run the loop of a reader thread, one job after the other."""
        while True:
            with self._change:
                while not self._jobs and not self._stopped:
                    self._change.wait()
                if self._stopped:
                    return
                entry, unit, job = self._jobs.popleft()
                component, after = self._from[unit], entry.after
            error: BaseException | None = None
            try:
                if after is not None:
                    after.synchronize()
                for index in job:
                    component.read(unit.tensors[index].name, unit.view(index, entry.memory))
            except BaseException as exc:
                error = exc
            with self._change:
                entry.error = entry.error or error
                entry.left -= 1
                if not entry.left:
                    entry.state = State.FULL if entry.error is None else State.FAILED
                    self._change.notify_all()


def _jobs(unit: Unit) -> list[range]:
    """Split the tensors of a unit, by index, into jobs for several readers."""
    jobs, start, size = [], 0, 0
    for index, tensor in enumerate(unit.tensors):
        size += tensor.nbytes
        if size >= _JOB:
            jobs.append(range(start, index + 1))
            start, size = index + 1, 0
    if start < len(unit.tensors):
        jobs.append(range(start, len(unit.tensors)))
    return jobs
