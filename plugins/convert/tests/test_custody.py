"""The folder where a conversion works: what no conversion wrote is never touched, and one process has it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from safetensors.torch import load_file  # noqa: E402

from lightx2v_convert.conversion import convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core.errors import RequestError  # noqa: E402
from lightx2v_core.events import Event, Progress  # noqa: E402

BLOCKS = ConvertOptions(split="blocks")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "source.safetensors"
    save_file({f"blocks.{i}.fc.weight": torch.randn(8, 8) for i in range(4)}, path)
    return path


def content(folder: Path) -> dict[str, Any]:
    """Everything below a folder, with what it is."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else path.stat().st_mode
        for path in sorted(folder.rglob("*"))
    }


def interrupted(source: Path, output: Path, options: ConvertOptions, count: int = 3) -> None:
    """Leave a conversion that was begun."""
    seen = 0

    def emit(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Progress)
        if seen > count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, output, options, emit=emit)


def a_link(folder: Path) -> None:
    folder.symlink_to("precious")


def a_link_to_an_empty_folder(folder: Path) -> None:
    (folder.parent / "empty").mkdir()
    folder.symlink_to("empty")


def a_link_to_nothing(folder: Path) -> None:
    folder.symlink_to("nothing")


def a_file(folder: Path) -> None:
    folder.write_text("mine")


def a_folder(folder: Path) -> None:
    (folder.parent / "precious").rename(folder)


def with_notes_of_another_program(folder: Path) -> None:
    folder.mkdir()
    (folder / "progress.json").write_text('{"job": "mine", "files": {}}')
    (folder / "out.safetensors.part").write_text("mine")


def with_notes_that_are_cut(folder: Path) -> None:
    folder.mkdir()
    (folder / "progress.json").write_text('{"lightx2v_convert": 1, "job"')


def with_notes_that_lead_elsewhere(folder: Path) -> None:
    folder.mkdir()
    notes = {
        "lightx2v_convert": 1,
        "job": "x",
        "names": ["../precious/a.txt"],
        "others": [],
        "files": {},
        "report": {},
    }
    (folder / "progress.json").write_text(json.dumps(notes))


def with_a_file_named_like_ours(folder: Path) -> None:
    folder.mkdir()
    (folder / "whole").mkdir()
    (folder / "whole" / "a.txt").write_text("mine")


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


PLANTED = (
    a_link, a_link_to_an_empty_folder, a_link_to_nothing, a_file, a_folder, with_notes_of_another_program,
    with_notes_that_are_cut, with_notes_that_lead_elsewhere, with_a_file_named_like_ours, open_to_all,
)  # fmt: skip


@pytest.mark.parametrize("split", ["single", "blocks"])
@pytest.mark.parametrize("plant", PLANTED)
def test_what_no_conversion_made_is_left_alone(
    source: Path, tmp_path: Path, plant: Callable[[Path], None], split: Any
) -> None:
    work = tmp_path / "work"
    (work / "precious" / "sub").mkdir(parents=True)
    (work / "precious" / "a.txt").write_text("mine")
    (work / "precious" / "sub" / "b.txt").write_text("mine")
    name = "out.safetensors" if split == "single" else "out"
    plant(work / f".{name}.converting")
    before = content(work)
    with pytest.raises(RequestError, match="nothing was changed") as refused:
        convert(source, work / name, ConvertOptions(split=split))
    assert f".{name}.converting" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert content(work) == before


@pytest.mark.parametrize(
    "add",
    [
        lambda folder: (folder / "mine.txt").write_text("mine"),
        lambda folder: (folder / "whole").symlink_to("../precious"),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: (folder / "block_9.safetensors.part").write_text("mine"),
    ],
)
@pytest.mark.parametrize("another", [False, True])
def test_what_somebody_put_into_a_folder_of_ours_is_left_alone(
    source: Path, tmp_path: Path, add: Callable[[Path], object], another: bool
) -> None:
    interrupted(source, tmp_path / "out", BLOCKS)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.txt").write_text("mine")
    add(tmp_path / ".out.converting")
    before = content(tmp_path)
    with pytest.raises(RequestError, match="contains files that no conversion wrote"):
        convert(
            source, tmp_path / "out", ConvertOptions(split="blocks", dtype="bfloat16") if another else BLOCKS
        )
    assert content(tmp_path) == before


def test_a_link_in_the_place_of_a_file_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    interrupted(source, tmp_path / "out", BLOCKS)
    folder = tmp_path / ".out.converting"
    for part in folder.glob("*.part"):
        part.unlink()
        part.symlink_to("../precious.txt")
    with pytest.raises(RequestError, match="contains files that no conversion wrote"):
        convert(source, tmp_path / "out", BLOCKS)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_link_that_is_put_there_meanwhile_has_no_effect(source: Path, tmp_path: Path) -> None:
    """The folder is resolved once: replacing it later does not affect the written files."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "progress.json").write_text("mine")
    folder = tmp_path / ".out.converting"
    moved = False

    def emit(event: Event) -> None:
        nonlocal moved
        if isinstance(event, Progress) and event.detail and not moved:
            moved = True
            folder.rename(tmp_path / "elsewhere")
            folder.symlink_to("precious")

    convert(source, tmp_path / "out", BLOCKS, emit=emit)
    assert moved
    assert content(tmp_path / "precious") == {"progress.json": b"mine"}
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 4


def test_the_folder_is_for_its_owner_only_and_the_result_is_not(source: Path, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        interrupted(source, tmp_path / "out", BLOCKS)
        assert (tmp_path / ".out.converting").stat().st_mode & 0o777 == 0o700
        convert(source, tmp_path / "out", BLOCKS)
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "out").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source.safetensors"]


def test_an_output_that_appeared_meanwhile_is_not_replaced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.done == event.total:
            out.write_text("mine")

    with pytest.raises(RequestError, match="already exists"):
        convert(source, out, emit=emit)
    assert out.read_text() == "mine"
    out.unlink()
    convert(source, out)
    assert len(load_file(out)) == 4


WAITING = """
import os, signal, sys
import fcntl
if LOCKLESS:
    def flock(file, how): raise OSError(LOCKLESS, os.strerror(LOCKLESS))
    fcntl.flock = flock
from pathlib import Path
from lightx2v_convert.options import ConvertOptions
from lightx2v_convert.conversion import convert
from lightx2v_core.errors import RequestError
from lightx2v_core.events import Progress
def emit(event):
    if STOP and isinstance(event, Progress) and event.detail:
        print("in it", flush=True)
        sys.stdin.readline()
try:
    convert(sys.argv[1], sys.argv[2], ConvertOptions(split=SPLIT, dtype=DTYPE), emit=emit)
except RequestError as exc:
    print(exc)
    sys.exit(exc.exit_status)
"""


def start(
    source: Path, output: Path, lockless: int, *, stop: bool, dtype: str | None
) -> subprocess.Popen[str]:
    split = "single" if output.suffix else "blocks"
    code = f"LOCKLESS, STOP, SPLIT, DTYPE = {lockless}, {stop}, {split!r}, {dtype!r}\n{WAITING}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(output)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.load
@pytest.mark.parametrize(
    ("lockless", "name"),
    [(0, "out.safetensors"), (0, "out"), (errno.ENOSYS, "out.safetensors"), (errno.ENOTSUP, "out"),
     (errno.ENOLCK, "out")],
)  # fmt: skip
def test_of_two_at_once_the_second_ends_and_names_the_first(
    source: Path, tmp_path: Path, lockless: int, name: str
) -> None:
    output = tmp_path / name
    first = start(source, output, lockless, stop=True, dtype=None)
    assert first.stdout is not None
    assert first.stdout.readline() == "in it\n"
    for dtype in (None, "bfloat16"):
        second = start(source, output, lockless, stop=False, dtype=dtype)
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 2
        assert f"is being written by process {first.pid} on {os.uname().nodename} since 20" in said
    first.communicate("\n" * 20, timeout=120)
    assert first.returncode == 0
    found = [output] if output.suffix else list(output.glob("*.safetensors"))
    tensors = [tensor for file in found for tensor in load_file(file).values()]
    assert len(tensors) == 4
    assert all(tensor.dtype == torch.float32 for tensor in tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "source.safetensors"])


@pytest.mark.load
@pytest.mark.parametrize("lockless", [0, errno.ENOSYS])
def test_a_kill_frees_the_folder(source: Path, tmp_path: Path, lockless: int) -> None:
    first = start(source, tmp_path / "out", lockless, stop=True, dtype=None)
    assert first.stdout is not None
    assert first.stdout.readline() == "in it\n"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = start(source, tmp_path / "out", lockless, stop=False, dtype=None)
    said, _ = second.communicate(timeout=120)
    assert (second.returncode, said) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source.safetensors"]


@pytest.mark.parametrize("host", ["another machine", os.uname().nodename])
def test_without_locks_an_owner_counts_as_alive_unless_it_is_dead_for_sure(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    interrupted(source, tmp_path / "out", BLOCKS)
    gone = subprocess.Popen(["true"])
    gone.wait()
    note = {"pid": gone.pid, "host": host, "since": "2026-12-01 01:02:03 UTC", "started": None}
    (tmp_path / ".out.converting" / "lock").write_text("")
    (tmp_path / ".out.converting" / "lock.owner").write_text(json.dumps(note))
    monkeypatch.setattr(fcntl, "flock", flock)
    if host == os.uname().nodename:
        convert(source, tmp_path / "out", BLOCKS)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source.safetensors"]
        return
    with pytest.raises(
        RequestError, match=f"process {gone.pid} on another machine since 2026-12-01 01:02:03 UTC"
    ):
        convert(source, tmp_path / "out", BLOCKS)


@pytest.mark.parametrize("name", ["out.safetensors", "out"])
def test_what_a_kill_left_behind_a_result_goes(source: Path, tmp_path: Path, name: str) -> None:
    options = ConvertOptions(split="single" if name != "out" else "blocks")
    interrupted(source, tmp_path / name, options, 1)
    folder = tmp_path / f".{name}.converting"
    notes = (folder / "progress.json").read_bytes()
    convert(source, tmp_path / name, options)
    folder.mkdir(0o700)  # as it is after the renaming
    (folder / "progress.json").write_bytes(notes)
    (folder / "lock").write_text("")
    with pytest.raises(RequestError, match="already exists"):
        convert(source, tmp_path / name, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "source.safetensors"])


def test_what_is_not_done_yet_stays_beside_a_file_of_that_name(source: Path, tmp_path: Path) -> None:
    interrupted(source, tmp_path / "out.safetensors", ConvertOptions())
    (tmp_path / "out.safetensors").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(RequestError, match="already exists"):
        convert(source, tmp_path / "out.safetensors")
    assert content(tmp_path) == before
