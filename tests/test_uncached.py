"""Files read past the system's cache: the same bytes, wherever they lie and wherever they go."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightx2v_core.checkpoint import direct_io as uncached
from lightx2v_core.checkpoint.direct_io import PAGE, open_uncached, read_at
from lightx2v_core.checkpoint.reader import OpenFiles
from lightx2v_core.errors import RunError

SIZE = 40 * PAGE + 77
#: positions and sizes around the borders of pages, and between them
PLACES = st.one_of(
    st.integers(0, SIZE),
    st.builds(lambda page, more: page * PAGE + more, st.integers(0, 39), st.integers(0, 9)),
)


@pytest.fixture(scope="module")
def data() -> bytes:
    return bytes(
        torch.randint(256, (SIZE,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).tolist()
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Path:
    found = tmp_path_factory.mktemp("uncached") / "file"
    found.write_bytes(data)
    return found


@pytest.fixture(scope="module")
def descriptors(path: Path) -> Iterator[tuple[int, int]]:
    """The file, open twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        past = open_uncached(path)
    if past is None:
        pytest.skip("this file system reads nothing past the cache")
    file = os.open(path, os.O_RDONLY)
    yield file, past
    os.close(file)
    os.close(past)


@pytest.mark.parametrize("most", [1 << 26, 3 * PAGE, 1000])
@given(offset=PLACES, size=PLACES, shift=st.one_of(st.sampled_from([0, 8, 64]), st.integers(0, 2 * PAGE)))
def test_any_range_comes_to_any_address(
    descriptors: tuple[int, int], data: bytes, most: int, offset: int, size: int, shift: int
) -> None:
    memory = torch.full((shift + size + PAGE,), 7, dtype=torch.uint8)
    done = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uncached, "_MOST", most)
        while done < size:
            count = read_at(*descriptors, offset + done, memory.data_ptr() + shift + done, size - done)
            if count == 0:
                break
            done += count
    want = data[offset : offset + size]
    assert bytes(memory[shift : shift + done].numpy()) == want
    assert (memory[:shift] == 7).all(), "what lies before was written to"
    assert (memory[shift + size :] == 7).all(), "what lies behind was written to"


def test_a_read_that_the_system_cuts_short_is_told_as_far_as_it_came(
    descriptors: tuple[int, int], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every read stops after two pages, as at a signal: the parts are put together all the same."""
    preadv = os.preadv

    def short(file: int, parts: list[memoryview], offset: int) -> int:
        given, left = [], 2 * PAGE
        for part in parts:
            given.append(part[:left])
            left -= len(given[-1])
        return preadv(file, [part for part in given if part], offset)

    monkeypatch.setattr(os, "preadv", short)
    memory, done, size = torch.zeros(SIZE, dtype=torch.uint8), 0, 20 * PAGE
    while done < size:
        count = read_at(*descriptors, 100 + done, memory.data_ptr() + done, size - done)
        assert 0 < count <= 2 * PAGE
        done += count
    assert bytes(memory[:size].numpy()) == data[100 : 100 + size]


def resident(path: Path, page: int) -> bool:
    """Whether a page of a file is in the system's cache; asking does not bring it there."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    file = os.open(path, os.O_RDONLY)
    place = libc.mmap(None, PAGE, mmap.PROT_READ, mmap.MAP_SHARED, file, page * PAGE)
    os.close(file)
    found = ctypes.create_string_buffer(1)
    assert libc.mincore(place, PAGE, found) == 0
    libc.munmap(place, PAGE)
    return bool(found.raw[0] & 1)


@pytest.mark.load
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the state of Linux's page cache")
def test_nothing_is_left_in_the_cache(descriptors: tuple[int, int], path: Path) -> None:
    os.fsync(descriptors[0])
    deadline = time.monotonic() + 20
    while resident(path, 8) and time.monotonic() < deadline:  # a page in use elsewhere is not dropped at once
        os.posix_fadvise(descriptors[0], 0, 0, os.POSIX_FADV_DONTNEED)
        time.sleep(0.05)
    if resident(path, 8):
        pytest.skip("this file system keeps its pages in the cache")
    files, out = OpenFiles(lambda _: None), torch.empty(30 * PAGE, dtype=torch.uint8)
    files.read_into(path, 5, out, "w", cached=False)
    past = resident(path, 8)
    files.read_into(path, 5, out, "w")
    assert (past, resident(path, 8)) == (False, True)
    files.close()


@pytest.mark.parametrize("when", ["opened", "read", "asked"])
def test_a_system_that_refuses_is_said_once_and_read_as_always(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    real_open, real_read = os.open, os.preadv

    def refusing_open(name: Any, flags: int, *more: Any) -> int:
        if flags & getattr(os, "O_DIRECT", 0):
            if when == "opened":
                raise OSError(22, "Invalid argument")
            flags &= ~os.O_DIRECT
        return real_open(name, flags, *more)

    def refusing_read(file: int, parts: list[Any], offset: int, *more: int) -> int:
        if len(parts[0]) == PAGE and when == "read":
            raise OSError(22, "Invalid argument")
        return real_read(file, parts, offset, *more)

    if when == "asked":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.setattr(os, "open", refusing_open)
    monkeypatch.setattr(os, "preadv", refusing_read)
    files, out = OpenFiles(lambda _: None), torch.empty(1000, dtype=torch.uint8)
    with pytest.warns(RuntimeWarning, match=f"direct I/O is not available for {path} "):
        files.read_into(path, 0, out, "w", cached=False)
    assert bytes(out.numpy()) == data[:1000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.read_into(path, 123, out, "w", cached=False)
    assert bytes(out.numpy()) == data[123:1123]
    files.close()


def test_a_file_that_takes_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    for each in (path, other):
        each.write_bytes(bytes(3 * PAGE))
    files, out = OpenFiles(lambda _: None), torch.empty(PAGE, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        past = open_uncached(other)
    if past is None:
        pytest.skip("this file system reads nothing past the cache")
    os.close(past)
    files.read_into(path, 0, out, "w")
    os.replace(other, path)
    for _ in range(2):
        with pytest.raises(RunError, match="it was replaced by another file"):
            files.read_into(path, 0, out, "w", cached=False)
    path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        files.read_into(path, 0, out, "w", cached=False)
    files.close()
