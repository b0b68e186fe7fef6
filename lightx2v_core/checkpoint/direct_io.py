"""Direct I/O: reads that bypass the page cache, so that the disk writes into the memory of the caller.

A file larger than host memory that is read repeatedly gains nothing from the page cache and pays for it: copying every
byte and reclaiming pages occupy a CPU core that computation could use. In return, O_DIRECT (open(2)) requires that
file offset, length and memory address are aligned to blocks of the disk. Tensors are not, so ``read_at`` reads the
pages that contain a tensor into its own memory and moves them into place there; partial pages at both ends go through
a few pages of scratch memory. All of that is one request to the disk.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import warnings
from pathlib import Path

#: alignment in bytes that suits every disk: they need 512 or 4096
PAGE = 4096
#: bytes of one request; a disk processes many at once
_MOST = 1 << 26


def open_uncached(path: Path) -> int | None:
    """Open a file for direct I/O by ``read_at``.

    Returns ``None``, with a warning that states the reason, if the operating system or this file's file system does not
    support it. Raises ``OSError`` if the file cannot be opened.
    """
    flag: int | None = getattr(os, "O_DIRECT", None)
    if flag is None:
        _warn(path, "this operating system has no O_DIRECT")
        return None
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDONLY | flag)
        with mmap.mmap(-1, PAGE) as page:
            os.preadv(descriptor, [page], 0)  # some file systems accept the flag and fail on the first read
    except OSError as exc:
        if descriptor >= 0:
            os.close(descriptor)
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        _warn(path, exc.strerror or str(exc))
        return None
    return descriptor


def _warn(path: Path, why: str) -> None:
    text = f"direct I/O is not available for {path} ({why}): reading it takes more time from computation"
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def read_at(descriptor: int, uncached: int | None, offset: int, address: int, nbytes: int) -> int:
    """Read up to ``nbytes`` bytes of a file, starting at ``offset``, into the memory at ``address``.

    ``descriptor`` is an ordinary descriptor of the file, ``uncached`` one from ``open_uncached``, or ``None``. Returns
    the number of bytes read, which may be smaller than ``nbytes``; 0 at the end of the file. Raises ``OSError``.
    """
    nbytes = min(nbytes, _MOST)
    if uncached is None:
        return os.preadv(descriptor, [_memory(address, nbytes)], offset)
    return _read_pages(uncached, offset, address, nbytes)


def _read_pages(descriptor: int, offset: int, address: int, nbytes: int) -> int:
    start = offset - offset % PAGE
    # bytes [body, body + length) of the file, whole pages, are read to the first aligned address, then moved into place
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
