"""Reads past the system's cache of files: the disk writes into the memory of whoever asks.

A file that is larger than the memory and is read again and again gains nothing from that cache, and pays for it: a
copy of every byte, and the search for pages that can be given up, take a CPU from whatever computes meanwhile. What
the system asks for in exchange (open(2), O_DIRECT) is that position, length and memory begin and end on borders of
the disk. Tensors do not lie like that, so the pages that hold a tensor are read as they are, moved into place inside
its own memory, and what does not fill a page at both ends comes by way of a few pages beside it; all of that is one
request to the disk.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import warnings
from pathlib import Path

#: a border for every disk: their own are 512 or 4096
PAGE = 4096
#: bytes of one request, many of which a disk works on at once
_MOST = 1 << 26


def open_uncached(path: Path) -> int | None:
    """Open a descriptor for ``read_at``; none, and a warning that says why, where the system reads no file so, or not
    this one. ``OSError`` when there is no such file."""
    flag: int | None = getattr(os, "O_DIRECT", None)
    if flag is None:
        _warn(path, "it has no O_DIRECT")
        return None
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDONLY | flag)
        with mmap.mmap(-1, PAGE) as page:
            os.preadv(descriptor, [page], 0)  # some file systems open a file, and refuse when it is read
    except OSError as exc:
        if descriptor >= 0:
            os.close(descriptor)
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        _warn(path, exc.strerror or str(exc))
        return None
    return descriptor


def _warn(path: Path, why: str) -> None:
    text = f"the system does not read {path} past its cache ({why}): reading takes more time from computing"
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def read_at(descriptor: int, uncached: int | None, offset: int, address: int, nbytes: int) -> int:
    """Read bytes of a file that is open twice, the second time by ``open_uncached`` or not at all, from ``offset`` on
    into the memory at ``address``. Returns how many of ``nbytes`` are there now, which may be fewer; 0 at the end of
    the file. ``OSError`` as from the system."""
    nbytes = min(nbytes, _MOST)
    if uncached is None:
        return os.preadv(descriptor, [_memory(address, nbytes)], offset)
    return _read_pages(uncached, offset, address, nbytes)


def _read_pages(descriptor: int, offset: int, address: int, nbytes: int) -> int:
    start = offset - offset % PAGE
    # pages [body, body + length) of the file go to the borders inside the memory first, and then to where they belong
    body, border = offset + -offset % PAGE, -address % PAGE
    length = nbytes - max(border, body - offset)
    length -= length % PAGE
    if length <= 0:
        body, border, length = start, start - offset, 0
    tail = body + length
    head, rest = body - start, offset + nbytes - tail
    pages = memoryview(mmap.mmap(-1, head + rest + PAGE))
    before, inside, after = (
        pages[:head],
        _memory(address + border, length),
        pages[head : head + rest + -rest % PAGE],
    )
    end = start + os.preadv(descriptor, [part for part in (before, inside, after) if part], start)
    if end > body and body - offset != border:
        ctypes.memmove(address + body - offset, address + border, min(end - body, length))
    for part, at in ((before, start), (after, tail)):
        first, last = max(offset, at), min(offset + nbytes, at + len(part), end)
        if last > first:
            _memory(address + first - offset, last - first)[:] = part[first - at : last - at]
    return max(min(end, offset + nbytes) - offset, 0)


def _memory(address: int, nbytes: int) -> memoryview:
    return memoryview((ctypes.c_char * nbytes).from_address(address)).cast("B")
