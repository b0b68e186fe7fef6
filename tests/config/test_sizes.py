"""Configurations and prompt files that are huge, endless, or not files: a stated limit and one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.cli.batch import BYTES as PROMPT_BYTES
from lightx2v_core.cli.batch import read_jobs
from lightx2v_core.config import jsonc
from lightx2v_core.config.load import load_config
from lightx2v_core.errors import ConfigError

N = 50_000

#: texts of a size
TEXTS: dict[str, Callable[[int], str]] = {
    "unknown keys": lambda n: json.dumps({f"promt{i}": 1 for i in range(n)}),
    "unknown keys of a section": lambda n: json.dumps({"sampling": {f"step{i}": 1 for i in range(n)}}),
    "wrong entries": lambda n: json.dumps({"loras": [{"path": i, "wight": 1} for i in range(n)]}),
    "LoRA files": lambda n: json.dumps({"loras": [{"path": f"l{i}.safetensors"} for i in range(n)]}),
    "components": lambda n: json.dumps({"components": {f"c{i}": {"pth": "x"} for i in range(n)}}),
    "options": lambda n: json.dumps({"model": {"options": {"*": {f"o{i}": 1 for i in range(n)}}}}),
    "names": lambda n: json.dumps({"attention": [f"sdpa{i}?" for i in range(n)]}),
    "keys of a refused key": lambda n: json.dumps({"parallel": {f"r{i}": 1 for i in range(n)}}),
    "keys of an ignored key": lambda n: json.dumps({"window_size": {f"r{i}": 1 for i in range(n)}}),
    "keys of mm_config": lambda n: json.dumps({"mm_config": {f"r{i}": 1 for i in range(n)}}),
    "one key again and again": lambda n: "{" + ",".join('"a": 1' for _ in range(n)) + "}",
    "quotes": lambda n: '"\\' * 4 * n,
    "escapes": lambda n: '{"a": "' + "\\\\" * 4 * n + '"}',
    "opened comments": lambda n: "/*" * 4 * n,
    "comments": lambda n: "{" + "/**/ // x\n" * n + "}",
    "brackets": lambda n: "[" * 4 * n,
    "objects": lambda n: '{"a":' * n,
    "commas": lambda n: '{"a":[' + "," * 4 * n,
    "empty lists": lambda n: '{"loras":[' + "[]," * n + "]}",
    "digits": lambda n: '{"fps": ' + "9" * 4 * n + "}",
    "a long key": lambda n: '{"' + "k" * 20 * n + '":1}',
    "a long prompt": lambda n: json.dumps({"prompt": "x" * 20 * n}),
    "lines": lambda n: "{" + "\n" * 20 * n + "}",
}


#: those that are tried on a busy machine too
BUSY = ("unknown keys", "brackets")

#: runs a command and tells its peak memory: the operating system may report that of the parent for a
#: process that has ended
PROGRAM = """
import sys
from pathlib import Path
from lightx2v_core.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    sys.stdout.write(status.partition("VmHWM:")[2].split()[0])
"""


def spent(*arguments: str) -> tuple[int, float, float, str]:
    """Exit status, processor seconds, MB at the most, and the output of a command."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said, told = process.stderr.read().decode(), process.stdout.read().decode()
    process.stdout.close()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, int(told.split()[-1]) / 1024, said


def check(said: str) -> None:
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 20
    assert len(said) < 20_000


@pytest.fixture(scope="module")
def start() -> float:
    """Processor seconds of a command that has nothing to do."""
    return min(spent("config", "check", os.devnull)[1] for _ in range(3))


def limit(start: float) -> float:
    """Ten seconds, or as much more as this machine needs for nothing than a quiet one does (a quarter of a second)."""
    return 10 * max(1, start / 0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.load if name in BUSY else ()) for name in TEXTS]
)
def test_twice_the_size_takes_twice_as_long(name: str, tmp_path: Path, start: float) -> None:
    seconds = []
    for size in (N, 2 * N):
        file = tmp_path / "c.json"
        file.write_text(TEXTS[name](size), encoding="utf-8")
        status, used, memory, said = spent("config", "check", str(file))
        assert status in (0, 2), said
        assert used < limit(start)
        assert memory < 1000
        check(said)
        seconds.append(used - start)
    # what takes no time at all is not measured
    assert seconds[1] < 3 * max(seconds[0], 0.5)


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_said_of_it_can_be_read(name: str) -> None:
    try:
        load_config(jsonc.loads(TEXTS[name](5000)))
    except ConfigError as exc:
        check(str(exc))


def test_what_is_left_out_is_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({f"promt{i:05d}": 1 for i in range(300)})
    message = str(caught.value)
    assert "'promt00000'; did you mean 'prompt'?" in message
    assert "and 285 more unknown keys" in message
    with pytest.raises(ConfigError) as caught:
        load_config({"loras": [{"path": i} for i in range(300)]})
    assert "... and 285 more" in str(caught.value)


READERS: dict[str, Callable[[Path], Any]] = {
    "configuration file": jsonc.read,
    "prompt file": lambda path: read_jobs(path, None),
}


@pytest.mark.parametrize("what", READERS)
def test_what_is_no_file(what: str, tmp_path: Path) -> None:
    places = [tmp_path, Path(os.devnull), Path("/dev/zero")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        places.append(tmp_path / "fifo")
    for place in places:
        if place.exists():
            with pytest.raises(ConfigError, match=f"{what} .* cannot be read: (not a regular|Is a direc)"):
                READERS[what](place)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=f"{what} .* does not exist"):
        READERS[what](tmp_path / "link")


@pytest.mark.parametrize(
    ("what", "most"), [("configuration file", jsonc.BYTES), ("prompt file", PROMPT_BYTES)]
)
def test_a_file_above_the_limit(what: str, most: int, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(most + 1)  # sparse: it takes no room
    with pytest.raises(ConfigError, match=f"{what} .* is too large: {most + 1} bytes; the limit is {most} "):
        READERS[what](path)


@pytest.mark.parametrize("depth", [jsonc.DEPTH, jsonc.DEPTH + 1])
def test_how_deep_it_may_be(depth: int) -> None:
    text = "[" * depth + "]" * depth
    if depth <= jsonc.DEPTH:
        assert isinstance(jsonc.loads(text), list)
    else:
        with pytest.raises(
            ConfigError, match=f"column {depth}: nested too deeply \\(over {jsonc.DEPTH} levels\\)"
        ):
            jsonc.loads(text)


def test_how_much_there_may_be() -> None:
    assert len(jsonc.loads("[" + "1," * (jsonc.ENTRIES - 2) + "1]")) == jsonc.ENTRIES - 1
    with pytest.raises(ConfigError, match=f"more than {jsonc.ENTRIES} keys and list entries"):
        jsonc.loads("[" + "1," * jsonc.ENTRIES + "1]")


def test_a_string_that_is_never_closed_has_a_place() -> None:
    with pytest.raises(ConfigError, match=r"line 2, column 7: unclosed string"):
        jsonc.loads('{"a": 1,\n "b": "x\n}')


def test_a_hundred_thousand_prompts(tmp_path: Path) -> None:
    path = tmp_path / "jobs.txt"
    lines = [f"prompt {i}" for i in range(100_000)]
    path.write_text("\n".join(lines), encoding="utf-8")
    jobs = read_jobs(path, None)
    assert [job.request["prompt"] for job in jobs] == lines
    path.write_text("\n".join([*lines, json.dumps({"prompt": "x", "output": "00007.mp4"})]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"several jobs write '.*00007\.mp4'"):
        read_jobs(path, "out")


@pytest.mark.slow
def test_a_batch_of_a_hundred_thousand_is_planned(tmp_path: Path, start: float) -> None:
    pytest.importorskip("lightx2v_mini", reason="needs the mini checkpoints")
    path, seconds = tmp_path / "jobs.txt", []
    for count in (50_000, 100_000):
        path.write_text("\n".join(f"a red circle, {i}" for i in range(count)), encoding="utf-8")
        status, used, memory, said = spent(
            "run", "--model-path", "mini", "--prompt-file", str(path), "--output", str(tmp_path / "out"), "--dry-run",
            "--quiet",
        )  # fmt: skip
        assert status == 0, said
        assert used < limit(start)
        assert memory < 1000
        seconds.append(used - start)
    assert seconds[1] < 3 * max(seconds[0], 0.5)
