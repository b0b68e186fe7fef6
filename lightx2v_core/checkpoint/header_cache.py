"""A cache of the reads of a plan: folder listings, shard indexes and the headers of weight files.

One plan reads the same file up to a hundred times, for each component of each model. Results and errors are cached
until the file or folder changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from attrs import field, frozen

from lightx2v_core.checkpoint.listing import Listing, list_folder
from lightx2v_core.checkpoint.shards import Sets, indexed, indexes, merged, weight_map, weight_sets
from lightx2v_core.errors import LightX2VError
from lightx2v_core.spec.tensors import Header

ReadHeader = Callable[[Path], Header]
T = TypeVar("T")
#: resolution of modification times in nanoseconds: a second change within it may leave the time unchanged
_TICK = 20_000_000


class Reader:
    """A caching ``ReadHeader`` that also caches folder listings and indexes. Errors are those of the functions that it
    calls, and are cached too."""

    def __init__(self, read_header: ReadHeader) -> None:
        self._read_header = read_header
        self._headers: _Known[Header] = _Known()
        self._listings: _Known[Listing] = _Known()
        self._indexes: _Known[Mapping[str, str]] = _Known()
        self._named: _Known[tuple[Path, ...]] = _Known()
        self._sets: _Known[Sets] = _Known()
        #: files -> their headers, and the merged header
        self._wholes: dict[tuple[Path, ...], tuple[list[Header], Header]] = {}

    def __call__(self, path: Path) -> Header:
        """Read the header of a file."""
        return self._headers.get(path, _state(path), lambda: self._read_header(path))

    def listing(self, folder: Path) -> Listing:
        """Read the contents of a folder, see ``list_folder``."""
        return self._listings.get(folder, _state(folder), lambda: list_folder(folder))

    def weight_map(self, index: Path) -> Mapping[str, str]:
        """Read the weight map of an index, see ``shards.weight_map``."""
        return self._indexes.get(index, _state(index), lambda: weight_map(index))

    def sets(self, folder: Path, pattern: str, summary: str) -> Sets:
        """Find the sets of weight files, see ``weight_sets``."""
        there = self.listing(folder)
        state = (_state(folder), *(_state(folder / name) for name in indexes(there, pattern)))
        return self._sets.get(
            (folder, pattern, summary), state, lambda: weight_sets(there, pattern, summary, self._indexed)
        )

    def _indexed(self, index: Path) -> tuple[Path, ...]:
        folder = index.parent
        return self._named.get(
            index,
            (_state(folder), _state(index)),
            lambda: indexed(index, self.weight_map(index), self.listing(folder)),
        )

    def whole(self, files: Sequence[Path]) -> Header:
        """Merge the headers of several files, see ``merged``."""
        headers = [self(path) for path in files]
        if len(headers) == 1:
            return headers[0]
        key = tuple(files)
        known = self._wholes.get(key)
        if known is None or not all(a is b for a, b in zip(known[0], headers, strict=True)):
            known = self._wholes[key] = (headers, merged(headers))
        return known[1]


def reader_of(read: ReadHeader) -> Reader:
    """Return a caching reader: ``read`` itself, if it is one."""
    return read if isinstance(read, Reader) else Reader(read)


@frozen
class _Known(Generic[T]):
    """Cached values and errors by key, each valid for one state of the file or folder."""

    answers: dict[object, tuple[object, T]] = field(factory=dict)
    errors: dict[object, tuple[object, LightX2VError]] = field(factory=dict)

    def get(self, key: object, state: object, work: Callable[[], T]) -> T:
        if (answer := self.answers.get(key)) is not None and answer[0] == state:
            return answer[1]
        if (error := self.errors.get(key)) is not None and error[0] == state:
            # a new exception: raising the same one again would extend its traceback
            raise type(error[1])(*error[1].args)
        try:
            value = work()
        except LightX2VError as exc:
            self.errors[key] = (state, exc)
            raise
        self.answers[key] = (state, value)
        return value


def _state(path: Path) -> object:
    """Return a value that differs after a change of a file or folder; unequal to any other value if the last change is
    more recent than the resolution of its modification time."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if time.time_ns() - status.st_mtime_ns < _TICK:
        return object()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
