"""Results that belong together: named as a whole, taken back when that fails, apart from what other processes do."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.checkpoint.interruption import uninterrupted
from lightx2v_core.checkpoint.staging import claim_outputs, staging
from lightx2v_core.errors import OutputError, RequestError

#: makes a part of each kind in a folder, says so, and waits
HOLDER = """
import sys
from pathlib import Path
from lightx2v_core.checkpoint.staging import Staging, claim_outputs, write_new
files, folder = Staging(), Path(sys.argv[1])
files.file(folder / "a.mp4").write(b"x")
write_new(files.folder(folder / "frames"), "00000.png", b"x")
with claim_outputs(folder / "b.mp4"):
    print("there", flush=True)
    sys.stdin.readline()
"""


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def old_set(folder: Path) -> dict[str, bytes]:
    for name in ("a.mp4", "a.json", "d.safetensors"):
        (folder / name).write_text(f"old {name}")
    return content(folder)


def write_set(folder: Path, *, named: Any = lambda: None) -> None:
    with staging(named) as files:
        files.bytes(folder / "a.mp4", b"new")
        files.bytes(folder / "d.safetensors", b"new")
        files.bytes(folder / "a.json", b"new")


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("call", ["replace", "link"])
@pytest.mark.parametrize("failing", range(1, 7))
def test_when_one_name_cannot_be_had_all_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, call: str
) -> None:
    old, real, seen = old_set(tmp_path), os.replace, 0

    def replace(*arguments: Any, **named: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments, **named)

    def link(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "replace", replace)
    if call == "link":  # a file system without second names
        monkeypatch.setattr(os, "link", link)
    needed = 5 if call == "replace" else 6
    if failing > needed:
        write_set(tmp_path)
        assert set(content(tmp_path).values()) == {b"new"}
        return
    with pytest.raises(OutputError, match="nothing was left behind"):
        write_set(tmp_path)
    assert content(tmp_path) == old


def test_the_order_of_names_leaves_no_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_set(tmp_path)
    states = []

    def watched(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> None:
            real(*arguments, **named)
            states.append({k: v[:3] for k, v in content(tmp_path).items() if not k.startswith(".")})

        return call

    for name in ("replace", "link", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    write_set(tmp_path)
    assert len(states) >= 8
    for state in states:
        assert "a.mp4" in state
        assert len(set(state.values())) == 1, state
    assert states[-1] == dict.fromkeys(("a.json", "a.mp4", "d.safetensors"), b"new")


@pytest.mark.load
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_all_have_their_names(tmp_path: Path, number: signal.Signals) -> None:
    seen: list[Any] = []
    before = signal.signal(number, lambda *_: seen.append(sorted(content(tmp_path))))
    try:
        with staging(lambda: seen.append("named")) as files:
            files.bytes(tmp_path / "a", b"1")
            files.bytes(tmp_path / "b", b"2")
            real = os.replace

            def replace(*arguments: Any, **named: Any) -> None:
                os.kill(os.getpid(), number)
                real(*arguments, **named)

            os.replace = replace
            try:
                files.publish(lambda: seen.append("named"))
            finally:
                os.replace = real
            assert seen[0] == "named"
            assert seen[1] == ["a", "b"]
            files._parts.clear()
    finally:
        signal.signal(number, before)


@pytest.mark.load
def test_in_a_thread_a_name_is_given_by_one_that_the_interpreter_waits_for() -> None:
    found = []

    def work() -> None:
        uninterrupted(lambda: found.append(threading.current_thread().daemon))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    assert found == [False]

    def fail() -> None:
        raise OSError("mine")

    def failing() -> None:
        try:
            uninterrupted(fail)
        except OSError as exc:
            found.append(str(exc) == "mine")

    thread = threading.Thread(target=failing, daemon=True)
    thread.start()
    thread.join()
    assert found == [False, True]


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path: Path, holder: Any) -> None:
    (tmp_path / "mine").mkdir()
    write_set(tmp_path)
    parts = {name for name in content(tmp_path) if ".part-" in name}
    assert len(parts) == 3
    holder.kill()
    holder.wait()
    foreign = next(path for path in tmp_path.iterdir() if path.name.startswith(".frames.part-"))
    (foreign / "mine.txt").write_text("mine")
    write_set(tmp_path)
    assert {name for name in content(tmp_path) if ".part-" in name} == {
        f"{foreign.name}/00000.png", f"{foreign.name}/mine.txt"
    }  # fmt: skip
    (foreign / "mine.txt").unlink()
    write_set(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4", "d.safetensors", "mine"]


def test_without_locks_the_number_of_the_process_tells(
    tmp_path: Path, holder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    write_set(tmp_path)
    assert len([name for name in content(tmp_path) if f".part-{holder.pid}-" in name]) == 2
    holder.kill()
    holder.wait()
    write_set(tmp_path)
    assert not [name for name in content(tmp_path) if f".part-{holder.pid}-" in name]


def test_what_only_looks_like_a_leftover_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "00000.png").write_text("mine")
    (tmp_path / f".a.mp4.part-{gone.pid}-1").symlink_to("precious")
    (tmp_path / f".b.mp4.part-{gone.pid}-1").symlink_to("precious/00000.png")
    (tmp_path / f".c.mp4.part-{gone.pid}").write_text("mine")
    (tmp_path / f".d.mp4.part-{os.getppid()}-1").write_text("somebody's")
    os.mkfifo(tmp_path / f".e.mp4.part-{gone.pid}-1")
    before = sorted(os.listdir(tmp_path))
    write_set(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a.json", "a.mp4", "d.safetensors"])
    assert (tmp_path / "precious" / "00000.png").read_text() == "mine"


def test_a_link_under_the_name_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for number in range(1, 8):
        (tmp_path / f".a.mp4.part-{os.getpid()}-{number}").symlink_to("precious")
    write_set(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


@pytest.mark.load
def test_a_second_process_is_refused_at_once_and_told_of_the_first(tmp_path: Path, holder: Any) -> None:
    began = time.process_time()
    with (
        pytest.raises(RequestError, match=f"b.mp4' is being written by process {holder.pid} on "),
        claim_outputs(tmp_path / "c.mp4", tmp_path / "b.mp4"),
    ):
        pass
    assert time.process_time() - began < 5
    with claim_outputs(tmp_path / "c.mp4"):
        pass
    holder.kill()
    holder.wait()
    with claim_outputs(tmp_path / "b.mp4"):
        assert not [path for path in tmp_path.iterdir() if str(holder.pid) in path.name]
    assert list(tmp_path.iterdir()) == []


def test_a_claim_leaves_no_folder(tmp_path: Path) -> None:
    with claim_outputs(tmp_path / "new" / "deep" / "a.mp4"):
        assert (tmp_path / "new" / "deep").is_dir()
    assert list(tmp_path.iterdir()) == []
