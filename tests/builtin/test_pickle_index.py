"""The index of torch.save files: any content is read as data or refused, never executed."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lightx2v_core.api import CheckpointError
from lightx2v_core.builtin.pickle_index import StoredTensor, UnsafePickle, read_index
from lightx2v_core.builtin.torch_file import read_header
from lightx2v_core.testing.profiles import examples

Archive = Callable[..., Path]


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Writes a file as torch.save does, around any index."""

    def write(
        index: bytes, storages: dict[str, bytes] | None = None, compress: int = zipfile.ZIP_STORED
    ) -> Path:
        path = tmp_path / "made.pth"
        with zipfile.ZipFile(path, "w", compress) as file:
            file.writestr("made/data.pkl", index)
            file.writestr("made/version", "3\n")
            for key, data in (storages or {}).items():
                file.writestr(f"made/data/{key}", data)
        return path

    return write


def unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


HAND_MADE = {
    "INST": b"(" + unicode("touch MARKER") + b"ios\nsystem\n.",
    "OBJ": b"(cos\nsystem\n" + unicode("touch MARKER") + b"o.",
    "REDUCE": b"cos\nsystem\n(" + unicode("touch MARKER") + b"tR.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n(" + unicode("touch MARKER") + b"t\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n(" + unicode("touch MARKER") + b"t}\x92.",
    "NEWOBJ of a known name": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\0.",
    "EXT4": b"\x80\x02\x84\x01\0\0\0.",
    "PERSID": b"Pos.system\n.",
    "BINPERSID of a text": unicode("os.system") + b"Q.",
    "STACK_GLOBAL": b"\x80\x04" + unicode("os") + unicode("system") + b"\x93(" + unicode("touch MARKER") + b"tR.",
    "STACK_GLOBAL of no text": b"\x80\x04]]\x93.",
    "dotted": b"\x80\x04" + unicode("collections") + unicode("OrderedDict.__init__.__globals__") + b"\x93.",
    "two names in one": b"ctorch._utils\n_rebuild_tensor_v2 os.system\n.",
    "call of a call": b"ccollections\nOrderedDict\n)R(tR.",
    "call of a text": unicode("os.system") + b")R.",
    "arguments of OrderedDict": b"ccollections\nOrderedDict\n(]tR.",
    "BUILD of a tensor": b"}" + unicode("w") + b"5}b.",
    "BUILD of a global": b"ctorch._utils\n_rebuild_tensor_v2\n}" + unicode("__module__") + unicode("os") + b"sb.",
    "items of a list": b"]" + unicode("a") + b"K\1s.",
    "append to a dict": b"}K\1a.",
    "append to a text": unicode("a") + b"K\1a.",
    "odd items": b"}(K\1u.",
    "a key that is a list": b"}]K\1s.",
    "a key that is a tuple": b"})K\1s.",
    "POP": b"}}0.",
    "DUP": b"}2.",
    "nothing": b".",
    "no STOP": b"}",
    "empty": b"",
    "unknown opcode": b"\xff.",
    "memo that was never set": b"h\5.",
    "mark on an empty stack": b"t.",
    "text that is not utf-8": b"X\2\0\0\0\xff\xfe.",
    "long that is cut": b"\x8a\x40.",
    "text larger than any file": b"\x8d" + b"\xff" * 7 + b"\x7f" + b"x.",
    "tensor without a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0)))}tR.",
    "parameter of no tensor": b"ctorch._utils\n_rebuild_parameter\n(K\1\x88}tR.",
    "storage of another kind": b"((" + unicode("module") + b"K\1" + unicode("0") + unicode("cpu") + b"K\1tQ.",
    "storage of no type": b"(" + unicode("storage") + b"K\1" + unicode("0") + unicode("cpu") + b"K\1tQ.",
    "storage of a function": b"(" + unicode("storage") + b"ctorch._utils\n_rebuild_tensor_v2\n" + unicode("0")
    + unicode("cpu") + b"K\1tQ.",
}  # fmt: skip


@pytest.mark.parametrize("index", HAND_MADE.values(), ids=HAND_MADE.keys())
def test_hand_made_pickles(archive: Archive, tmp_path: Path, index: bytes) -> None:
    marker = tmp_path / "executed"
    # the length byte of the command changes with the place of the marker
    command = f"touch {marker}"
    message = refusal(archive(index.replace(unicode("touch MARKER"), unicode(command))))
    assert "nothing in it was executed" in message
    assert not marker.exists()


def storage(
    key: bytes = unicode("0"), elements: bytes = b"K\4", kind: bytes = b"ctorch\nFloatStorage\n"
) -> bytes:
    return b"(" + unicode("storage") + kind + key + unicode("cpu") + elements + b"tQ"


def tensor(
    shape: bytes = b"(K\4t", stride: bytes = b"(K\1t", offset: bytes = b"K\0", of: bytes = storage()
) -> bytes:
    """The index of ``{"w": a float tensor}``."""
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + of + offset + shape + stride + b"\x89}tR"
    return b"\x80\x02}" + unicode("w") + view + b"s."


HUGE = b"\x8a\x0a" + b"\xff" * 9 + b"\x00"
VIEWS = {
    "offset beyond": tensor(offset=b"K\1"),
    "shape beyond": tensor(shape=b"(K\5t"),
    "stride beyond": tensor(stride=b"(K\2t"),
    "more dims than strides": tensor(shape=b"(K\2K\2t"),
    "negative offset": tensor(offset=b"J\xff\xff\xff\xff"),
    "negative dim": tensor(shape=b"(J\xff\xff\xff\xfft"),
    "negative stride": tensor(stride=b"(J\xff\xff\xff\xfft"),
    "huge dim": tensor(shape=b"(" + HUGE + b"t", stride=b"(K\0t"),
    "huge product": tensor(shape=b"(J\0\0\0\x7fJ\0\0\0\x7ft", stride=b"(K\0K\0t"),
    "huge offset": tensor(offset=HUGE),
    "bool dim": tensor(shape=b"(\x88t"),
    "text as shape": tensor(shape=unicode("4")),
    "dict as shape": tensor(shape=b"}"),
    "text as offset": tensor(offset=unicode("0")),
    "negative storage": tensor(of=storage(elements=b"J\xff\xff\xff\xff")),
    "text as size of the storage": tensor(of=storage(elements=unicode("4"))),
    "number as name of the storage": tensor(of=storage(key=b"K\0")),
    "path as name of the storage": tensor(of=storage(key=unicode("../version"))),
    "missing storage": tensor(of=storage(key=unicode("1"))),
    "storage longer than its record": tensor(of=storage(elements=b"K\5")),
}


@pytest.mark.parametrize("index", VIEWS.values(), ids=VIEWS.keys())
def test_tensors_that_reach_beyond_their_storage(archive: Archive, index: bytes) -> None:
    refusal(archive(index, {"0": bytes(16)}))


def test_the_hand_made_tensor_is_a_good_one_without_its_fault(archive: Archive) -> None:
    assert read_header(archive(tensor(), {"0": bytes(16)})).shapes == {"w": (4,)}


def test_bombs_end_at_once(archive: Archive) -> None:
    """Values that share parts are small in the file and exponential when they are printed, hashed or walked."""
    doubled = b"K\1" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(100))
    for index in (
        doubled + b"Q.",
        b"}" + doubled + b"K\1s.",
        b"}" + unicode("w") + doubled + b"s.",
        b"ctorch\nSize\n(" + doubled + b"tR.",
        tensor(of=storage(key=doubled)),
        tensor(shape=doubled),
    ):
        refusal(archive(index))


@pytest.mark.load
@pytest.mark.timeout(20)
def test_a_dict_that_holds_itself(archive: Archive) -> None:
    assert "not a tensor but a dict" in refusal(archive(b"}q\0" + unicode("state_dict") + b"h\0s."))


def index_of(value: Any, protocol: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as file:
        return file.read("archive/data.pkl")


INDEXES = [
    index_of({"a.w": torch.ones(2, 3), "b": nn.Parameter(torch.ones(2).bfloat16()), "n": {"x": 5}}, protocol)
    for protocol in (2, 4)
]
fuzz = settings(
    max_examples=examples(1500), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(data: bytes) -> None:
    try:
        value = read_index(data)
    except UnsafePickle:
        return
    assert type(value) in (dict, list, tuple, str, int, float, bool, type(None), StoredTensor) or type(
        value
    ).__name__ in ("_Global", "_Storage", "_Mark")


@fuzz
@given(
    which=st.integers(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_flipped_bytes_of_the_index(which: int, flips: list[tuple[float, int]]) -> None:
    data = bytearray(INDEXES[which])
    for at, value in flips:
        data[int(at * len(data))] = value
    read_or_refuse(bytes(data))


@fuzz
@given(data=st.binary(max_size=60))
def test_any_bytes_as_an_index(data: bytes) -> None:
    read_or_refuse(data)


ENDLESS = {
    "marks": b"(" * 2_000_000,
    "lists": b"]" * 2_000_000,
    "lists that are kept": b"](" + b"]" * 900_000 + b"e",
    "numbers that are put and taken": b"}" + (b"K\x01" * 1000 + b"q\x00") * 6000,
    "memo": b"]" + b"\x94" * 7_000_000,
    "shapes that grow": b"](" + b"K\x01" * 1000 + b"eq\x000" + (b"ctorch\nSize\nh\x00\x85R") * 1000,
    "a number without end": b"\x8b" + struct.pack("<I", 1 << 20) + b"\x01" * (1 << 20),
    "a name without end": b"c" + b"a" * 1_000_000 + b"\nb\n",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_small_file_that_asks_for_very_much(archive: Archive, case: str) -> None:
    """Compressed, each takes some kilobytes; refused before it takes the time or memory that it asks for."""
    before = time.process_time()
    message = refusal(archive(b"\x80\x02" + ENDLESS[case] + b".", compress=zipfile.ZIP_DEFLATED))
    assert "rejected" in message or "damaged" in message or "instead of named tensors" in message
    assert time.process_time() - before < 30


def test_an_archive_of_too_many_records(tmp_path: Path) -> None:
    """The list of records is refused by its length, before it is read."""
    path = tmp_path / "made.pth"
    path.write_bytes(bytes(100) + b"PK\x05\x06" + bytes(8) + struct.pack("<II", 1 << 26, 0) + bytes(2))
    assert "archive directory is larger" in refusal(path)


def test_a_record_of_the_byte_order_without_end(tmp_path: Path) -> None:
    path = tmp_path / "made.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("made/data.pkl", b"\x80\x02}.")
        file.writestr("made/byteorder", b"little" * 10_000_000)
    assert "byte order" in refusal(path)


@pytest.mark.parametrize("axes", [65, 400_000])
def test_a_tensor_of_too_many_axes(archive: Archive, axes: int) -> None:
    shape = b"(" + b"K\x01" * axes + b"t"
    storage = (
        b"(" + unicode("storage") + b"ctorch\nFloatStorage\n" + unicode("0") + unicode("cpu") + b"K\x01tQ"
    )
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + shape + b"tR"
    index = b"\x80\x02}" + unicode("w") + call + b"s."
    assert "invalid shape" in refusal(archive(index, {"0": bytes(4)}))
