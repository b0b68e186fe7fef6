"""safetensors files: tensors equal those of the reference implementation, and nothing damaged gets through."""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from lightx2v_core.api import CheckpointError, RunError
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header
from lightx2v_core.testing.profiles import examples

Write = Callable[..., Path]


def packed(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of a header (data, or the bytes themselves)."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "weights.safetensors") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal bit by bit; fp8 has no comparison of its own."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.reshape(-1).view(torch.uint8).tolist() == right.reshape(-1).view(torch.uint8).tolist()


EVERY_DTYPE = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e8m0fnu, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16,
    torch.uint32, torch.uint64, torch.bool, torch.complex64,
)  # fmt: skip


def every_kind() -> dict[str, torch.Tensor]:
    """A tensor of every dtype, and the odd shapes: none, empty, many dims."""
    generator = torch.Generator().manual_seed(1)
    found = {
        str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype)
        if dtype != torch.float8_e8m0fnu
        else torch.randint(0, 255, (3, 5), generator=generator).to(torch.uint8).view(dtype)
        for dtype in EVERY_DTYPE
    }
    return found | {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 7),
        "many": torch.randn(2, 1, 3, 1, 2, 2, generator=generator),
    }


def test_every_dtype_and_shape_reads_as_the_reference_does(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    save_file(every_kind(), path, metadata={"format": "pt", "schöne": "grüße"})
    header = read_header(path)
    assert dict(header.metadata) == {"format": "pt", "schöne": "grüße"}
    source, expected = SafetensorsSource(header), load_file(path)
    assert sorted(source.names()) == sorted(expected)
    for name, tensor in expected.items():
        assert same(source.read(name), tensor), name
        assert source.info(name).shape == tuple(tensor.shape)
    source.close()


def test_a_tensor_that_was_read_outlives_the_source_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.arange(1000)}, path)
    source = SafetensorsSource(read_header(path))
    tensor = source.read("w")
    source.close()
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(tensor, torch.arange(1000))
    tensor += 1  # it is ours: not a view of a read-only map


def test_closing_releases_every_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.arange(4)}, path)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        source = SafetensorsSource(read_header(path))
        source.read("w")
        source.close()
        source.close()
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_an_empty_header_is_a_file_without_tensors(write: Write) -> None:
    assert len(read_header(write(packed({})))) == 0
    assert len(read_header(write(packed({"__metadata__": {"a": "b"}})))) == 0


def test_a_padded_header_is_fine(write: Write) -> None:
    text = json.dumps({"w": entry([2], 0, 2)}).encode() + b" " * 32
    assert read_header(write(packed(text, b"ab"))).tensors["w"].offset == 8 + len(text)


@pytest.mark.parametrize("cut", [1, 5, 4000])
def test_cut_in_the_data(write: Write, cut: int) -> None:
    content = save({"w": torch.zeros(1000), "v": torch.zeros(30)})
    message = refusal(write(content[:-cut]))
    assert "truncated" in message
    assert "download" in message


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 40])
def test_cut_in_the_header(write: Write, length: int) -> None:
    message = refusal(write(save({"w": torch.zeros(1000)})[:length]))
    assert "truncated" in message or "not a safetensors file" in message


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 2**60, 2**64 - 1])
def test_a_header_length_that_cannot_be(write: Write, length: int) -> None:
    assert "not a safetensors file" in refusal(write(struct.pack("<Q", length) + b"{}" + b"\0" * 64))


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        b"<!DOCTYPE html><html><head><title>404</title></head></html>",
        bytes(4096),
    ],
    ids=["picture", "zip", "web page", "zeros"],
)
def test_a_foreign_file(write: Write, content: bytes) -> None:
    message = refusal(write(content))
    assert "not a safetensors file" in message or "truncated" in message


def test_a_git_lfs_pointer_says_what_it_is(write: Write) -> None:
    content = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    message = refusal(write(content))
    assert "git-lfs" in message
    assert "git lfs pull" in message


def test_bytes_after_the_last_tensor(write: Write) -> None:
    assert "3 bytes follow" in refusal(write(save({"w": torch.zeros(10)}) + b"abc"))


ENTRIES = {
    "overlap": {"a": entry([4], 0, 4), "b": entry([4], 2, 6)},
    "same place": {"a": entry([6], 0, 6), "b": entry([6], 0, 6)},
    "hole": {"a": entry([2], 0, 2), "b": entry([2], 4, 6)},
    "hole in front": {"a": entry([4], 2, 6)},
    "empty tensor in the middle of another": {"a": entry([6], 0, 6), "b": entry([0], 3, 3)},
    "end before begin": {"a": entry([6], 6, 0)},
    "size and shape differ": {"a": entry([7], 0, 6)},
    "bits": {"a": entry([6], 0, 6, "F32")},
    "negative dim": {"a": entry([-6], 0, 6)},
    "two negative dims": {"a": entry([-2, -3], 0, 6)},
    "negative offset": {"a": entry([6], -6, 0)},
    "huge dim beside a zero": {"a": entry([6], 0, 6), "b": entry([0, 2**70], 6, 6)},
    "huge product": {"a": entry([2**40, 2**40], 0, 6)},
    "huge offsets": {"a": entry([6], 2**64, 2**64 + 6)},
    "fraction": {"a": entry([6.0], 0, 6)},
    "bool dim": {"a": entry([6, True], 0, 6)},
    "text as shape": {"a": entry("6", 0, 6)},
    "object as shape": {"a": entry({}, 0, 1), "b": entry([5], 1, 6)},
    "null shape": {"a": entry(None, 0, 6)},
    "unknown dtype": {"a": entry([6], 0, 6, "I4")},
    "list as dtype": {"a": entry([6], 0, 6, ["U8"])},
    "three offsets": {"a": {"dtype": "U8", "shape": [6], "data_offsets": [0, 3, 6]}},
    "no offsets": {"a": {"dtype": "U8", "shape": [6]}},
    "null offsets": {"a": {"dtype": "U8", "shape": [6], "data_offsets": None}},
    "list as entry": {"a": [1, 2]},
    "number as entry": {"a": 6},
    "metadata is a list": {"__metadata__": ["x"], "a": entry([6], 0, 6)},
    "metadata is a text": {"__metadata__": "x", "a": entry([6], 0, 6)},
    "metadata is a number": {"__metadata__": 5, "a": entry([6], 0, 6)},
    "metadata holds no text": {"__metadata__": {"x": {"y": 1}}, "a": entry([6], 0, 6)},
    "name that is not text": {"\ud800": entry([6], 0, 6)},
}


@pytest.mark.parametrize("header", ENTRIES.values(), ids=ENTRIES.keys())
def test_entries_that_contradict_themselves(write: Write, header: Any) -> None:
    message = refusal(write(packed(header, b"123456")))
    assert "damaged" in message or "truncated" in message


HEADERS = {
    "list": b"[]",
    "number": b"55",
    "null": b"null",
    "text": b'"x"',
    "not json": b"{'a': 1}",
    "cut": b'{"a": {"dtype"',
    "no utf-8": b'{"\xff\xfe": 1}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 50_000,
    "huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "not a number": b'{"a": NaN}',
    "more after it": b"{} {}",
    "a name twice": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "a key twice": b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}',
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS.keys())
def test_headers_that_are_none(write: Write, text: bytes) -> None:
    message = refusal(write(packed(text)))
    assert len(message) < 1000


def test_a_long_damaged_entry_makes_no_long_message(write: Write) -> None:
    assert len(refusal(write(packed({"a": entry([1] * 100_000, 0, 5)}, b"12345")))) < 1000


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "missing.safetensors")
    assert "cannot be read" in refusal(tmp_path)


SMALL = save(
    {"a.weight": torch.zeros(2, 3), "b": torch.tensor(1.0), "c": torch.zeros(0)}, metadata={"k": "v"}
)
HEADER_END = 8 + int.from_bytes(SMALL[:8], "little")


def survives(path: Path, content: bytes) -> None:
    """Either it is refused with our error, or every tensor it promises can be read."""
    path.write_bytes(content)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    source = SafetensorsSource(header)
    for name in source.names():
        assert tuple(source.read(name).shape) == source.info(name).shape
    source.close()


fuzz = settings(
    max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(flips=st.lists(st.tuples(st.integers(0, HEADER_END - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_of_the_header(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(SMALL)
    for at, value in flips:
        content[at] = value
    survives(tmp_path / "fuzz.safetensors", bytes(content))


@fuzz
@given(begin=st.integers(0, HEADER_END), end=st.integers(0, HEADER_END), extra=st.binary(max_size=12))
def test_cut_out_and_replaced_bytes_of_the_header(tmp_path: Path, begin: int, end: int, extra: bytes) -> None:
    content = SMALL[: min(begin, end)] + extra + SMALL[max(begin, end) :]
    survives(tmp_path / "fuzz.safetensors", content)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["U8", "F32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@fuzz
@given(header=json_values, data=st.binary(max_size=8))
def test_any_json_as_a_header(tmp_path: Path, header: Any, data: bytes) -> None:
    survives(tmp_path / "fuzz.safetensors", packed(header, data))


def test_a_file_that_vanishes_after_planning(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    source = SafetensorsSource(read_header(path))
    path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        source.read("w")


def test_a_file_that_is_cut_after_planning(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    source = SafetensorsSource(read_header(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match="changed"):
        source.read("w")


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"v": torch.zeros(4), "w": torch.zeros(100)}, path)
    source = SafetensorsSource(read_header(path))
    source.read("v")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 20)
    with pytest.raises(RunError, match="truncated"):
        source.read("w")


def test_a_file_that_is_another_one_after_planning(tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"w": torch.zeros(100)}, path)
    save_file({"longer_name": torch.ones(50), "w": torch.ones(100)}, other)
    source = SafetensorsSource(read_header(path))
    shutil.copy(other, path)
    with pytest.raises(RunError, match="changed"):
        source.read("w")


def test_a_file_that_is_changed_in_place_is_noticed(tmp_path: Path) -> None:
    import os

    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(4.0), "b": torch.ones(3)}, path)
    source = SafetensorsSource(read_header(path))
    out = torch.empty(4)
    assert source.direct("a")
    source.read_into("a", out)
    assert torch.equal(out, torch.arange(4.0))
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    os.utime(path, (1, 1))
    with pytest.raises(RunError, match="changed while in use"):
        source.read_into("a", out)
    with pytest.raises(RunError, match="changed while in use"):
        source.read("b")


@pytest.mark.parametrize("shape", [[1 << 48] * 400_000, [1] * 65, [0] * 100_000])
def test_a_shape_of_very_many_axes(tmp_path: Path, shape: list[int]) -> None:
    """Refused before their product is formed, which takes time with the square of their number."""
    text = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "made.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    before = time.process_time()
    with pytest.raises(CheckpointError, match="invalid header entry") as caught:
        read_header(path)
    assert len(str(caught.value)) < 600
    assert time.process_time() - before < 10


def test_a_header_of_very_many_lists(tmp_path: Path) -> None:
    """Each is three bytes of the file, and sixty of memory."""
    text = b'{"a": [' + b"[]," * 6_000_000 + b"1]}"
    path = tmp_path / "made.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="more entries than a million tensors need"):
        read_header(path)
