"""torch.save files: read as torch reads them, and nothing in them is ever executed."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lightx2v_core.api import CheckpointError, RunError
from lightx2v_core.builtin.torch_file import TorchSource, read_header
from lightx2v_core.testing.profiles import examples

Archive = Callable[..., Path]


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal bit by bit; fp8 has no comparison of its own."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    left, right = left.contiguous().reshape(-1), right.contiguous().reshape(-1)
    return left.view(torch.uint8).tolist() == right.view(torch.uint8).tolist()


def check_reads_as_torch(path: Path, expected: dict[str, torch.Tensor]) -> None:
    header = read_header(path)
    source = TorchSource(header)
    assert sorted(source.names()) == sorted(expected)
    for name, tensor in expected.items():
        info = source.info(name)
        assert info.shape == tuple(tensor.shape), name
        assert info.dtype == str(tensor.dtype).removeprefix("torch.")
        assert same(source.read(name), tensor.detach()), name
        assert not source.read(name).requires_grad
    source.close()


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


DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
)  # fmt: skip


def index_of(value: Any) -> bytes:
    """The pickle inside of the file that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as file:
        return file.read("archive/data.pkl")


def plain() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        **{str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES},
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pth"
    torch.save(plain(), path, pickle_protocol=protocol)
    # torch's own weights-only reader knows protocol 2 alone
    check_reads_as_torch(path, torch.load(path, weights_only=protocol == 2))


def test_views_strides_and_shared_storages(tmp_path: Path) -> None:
    base = torch.arange(60.0).view(5, 12)
    state = {
        "base": base,
        "offset": base[2:, 3:7],
        "transposed": base.t(),
        "every_other": base[::2, ::3],
        "expanded": torch.arange(3.0)[:, None].expand(3, 4),
        "last": base.view(-1)[59:],
        "nothing": base[5:],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "fp8_view": torch.arange(32).to(torch.float8_e4m3fn)[7:],
    }
    path = tmp_path / "a.pth"
    torch.save(state, path)
    check_reads_as_torch(path, state)


def test_parameters_modules_and_ordered_dicts(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(module.state_dict(), path)
    check_reads_as_torch(path, dict(module.state_dict()))
    torch.save({"w": nn.Parameter(torch.randn(3)), "v": torch.randn(2, requires_grad=True)}, path)
    check_reads_as_torch(path, torch.load(path, weights_only=True))
    torch.save(collections.OrderedDict(a=torch.ones(2)), path)
    check_reads_as_torch(path, {"a": torch.ones(2)})


@pytest.mark.parametrize("key", ["state_dict", "model_state"])
def test_wrapped_state_dicts(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(
        {key: {"w": torch.arange(4)}, "epoch": 7, "lr": 0.5, "done": True, "note": "x", "none": None}, path
    )
    check_reads_as_torch(path, {"w": torch.arange(4)})
    torch.save({key: {key: {"w": torch.arange(4)}}}, path)
    check_reads_as_torch(path, {"w": torch.arange(4)})


def test_many_tensors(tmp_path: Path) -> None:
    """More than pickle puts into one batch, and memo indexes above 255."""
    path = tmp_path / "a.pth"
    state = {f"blocks.{i}.weight": torch.full((2,), float(i)) for i in range(2500)}
    torch.save(state, path)
    header = read_header(path)
    assert list(header) == list(state)
    assert torch.equal(TorchSource(header).read("blocks.2499.weight"), torch.full((2,), 2499.0))


@pytest.mark.parametrize(
    "value",
    [5, 2.5, "text", None, True, [1, 2], (1,), {}, torch.ones(2), [torch.ones(2)], {"w": 5}, {"w": "text"},
     {"w": None}, {"w": [torch.ones(2)]}, {"w": {"x": torch.ones(2)}}, {5: torch.ones(2)}, {"state_dict": {}}],
    ids=repr,
)  # fmt: skip
def test_anything_but_tensors_by_name(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.pth"
    torch.save(value, path)
    message = refusal(path)
    assert "instead of named tensors" in message or "is not a tensor but" in message


class Attack:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["top", "value", "key", "beside"])
def test_nothing_is_executed(tmp_path: Path, protocol: int, place: str) -> None:
    marker = tmp_path / "executed"
    evil = Attack(os.system, f"touch {marker}")
    value: Any = {
        "top": evil,
        "value": {"w": evil},
        "key": {("a", evil): torch.ones(1)},
        "beside": {"state_dict": {"w": torch.ones(1)}, "optimizer": evil},
    }[place]
    path = tmp_path / "a.pth"
    torch.save(value, path, pickle_protocol=protocol)
    message = refusal(path)
    assert "nothing in it was executed" in message
    assert "posix.system" in message
    assert not marker.exists()
    # and the file is a real attack: an ordinary unpickler runs it
    with zipfile.ZipFile(path) as file:
        index = file.read("a/data.pkl")
    with contextlib.suppress(pickle.UnpicklingError):  # storages need torch's own unpickler
        pickle.Unpickler(io.BytesIO(index), fix_imports=False).load()
    assert marker.exists() or place != "top"


@pytest.mark.parametrize(
    "value",
    [{"w": __import__("numpy").float64(3)} if __import__("importlib").util.find_spec("numpy") else {"w": 3 + 4j},
     {"w": Path("/etc")}, {"w": collections.deque([1])}, {"w": print}, {"w": torch.float32}, {"w": {1, 2}},
     {"w": torch.device("cpu")}, {"w": bytes(5)}, {"w": slice(1)}, {"w": nn.ReLU}],
    ids=lambda value: type(value["w"]).__name__,
)  # fmt: skip
def test_other_objects_are_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.pth"
    torch.save(value, path)
    assert "nothing in it was executed" in refusal(path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.pth"
    torch.save(plain(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [b"hello, this is text", b"\x89PNG\r\n\x1a\n" + bytes(300), b"\x80\x02}q\x00.", bytes(500)],
    ids=["text", "picture", "bare pickle", "zeros"],
)
def test_a_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert "not a torch.save file" in refusal(path)


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 11361920418\n")
    assert "git lfs pull" in refusal(path)


def test_other_archives(tmp_path: Path, archive: Archive) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "x")
    assert "no data.pkl" in refusal(path)
    assert "compressed" in refusal(
        archive(index_of({"w": torch.ones(4)}), {"0": bytes(16)}, zipfile.ZIP_DEFLATED)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes((1 << 28) + 1))
    assert "larger than" in refusal(path)


def test_a_wrong_checksum_of_the_index(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"))
    assert "damaged" in refusal(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "missing.pth")
    assert "cannot be read" in refusal(tmp_path)


def test_files_that_change_after_planning(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(3)}, path)
    header = read_header(path)
    for value in ({"v": torch.ones(3)}, {"w": torch.ones(4)}, {"w": torch.ones(3).half()}, {"w": 3}, 5):
        torch.save(value, path)
        with pytest.raises(RunError, match="changed since planning"):
            TorchSource(header).read("w")
    for content in (b"", b"text", path.read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(RunError, match="changed since planning"):
            TorchSource(header).read("w")
    path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        TorchSource(header).read("w")


def test_a_tensor_that_was_read_outlives_the_source_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(1000)}, path)
    source = TorchSource(read_header(path))
    tensor = source.read("w")
    source.close()
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(tensor, torch.arange(1000))


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"v": torch.ones(4), "w": torch.ones(4000)}, path)
    source = TorchSource(read_header(path))
    source.read("v")
    with path.open("r+b") as file:
        file.truncate(8000)
    with pytest.raises(RunError, match="truncated"):
        source.read("w")


def test_another_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", index_of({"w": torch.ones(4)}))
        file.writestr("a/byteorder", "big")
        file.writestr("a/data/0", bytes(16))
    assert "byte order" in refusal(path)


fuzz = settings(
    max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_of_the_file(tmp_path: Path, flips: list[tuple[float, int]]) -> None:
    """The header is refused, or every tensor can be read, or reading says that the file is damaged."""
    path = tmp_path / "fuzz.pth"
    torch.save({"w": torch.ones(5), "v": torch.ones(3).half()}, path)
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    source = TorchSource(header)
    for name in source.names():
        try:
            assert tuple(source.read(name).shape) == header.tensors[name].shape
        except RunError:
            return


def test_tensors_are_read_into_memory_that_is_there(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    stored = {"plain": base, "turned": base.t(), "rows": base[1:], "one": torch.ones(1, 5).expand(1, 5)}
    path = tmp_path / "a.pth"
    torch.save(stored, path)
    source = TorchSource(read_header(path))
    assert {name: source.direct(name) for name in stored} == {
        "plain": True, "turned": False, "rows": True, "one": True
    }  # fmt: skip
    for name in ("plain", "rows", "one"):
        out = torch.empty(stored[name].shape)
        source.read_into(name, out)
        assert torch.equal(out, stored[name])
    source.close()
