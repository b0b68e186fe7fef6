"""``run --prompt-file``: many jobs, one loaded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from lightx2v_core.cli.batch import read_jobs
from lightx2v_core.errors import ConfigError

SMALL = ["--size", "32x32", "--frames", "5", "--steps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, 0)
    return folder


def run(checkpoint: Path, *arguments: object) -> tuple[int, list[dict[str, object]], str]:
    line = [sys.executable, "-m", "lightx2v_core", "run", "--model-path", str(checkpoint), *SMALL, "--json"]
    done = subprocess.run([*line, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return done.returncode, [json.loads(text) for text in done.stdout.splitlines()], done.stderr


def test_jobs_share_a_model_fail_alone_and_resume(checkpoint: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.txt"
    jobs.write_text(
        "# a comment\n"
        "a red fox\n"
        '{"prompt": "a dog", "seed": 7, "size": "48x32", "output": "dog.mp4"}\n'
        '{"prompt": "a cat", "frames": 6}\n'
        "\n"
        "a bird\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    status, events, errors = run(checkpoint, "--prompt-file", jobs, "--output", f"{out}/")
    assert status == 1
    states = [(event["line"], event["state"]) for event in events if event["event"] == "job_done"]
    assert states == [(2, "done"), (3, "done"), (4, "failed"), (6, "done")]
    assert [event["phase"] for event in events if event["event"] == "phase"].count("load") == 1
    assert "1 of 4 jobs failed" in errors
    assert "frames must be 4k + 1: instead of 6 use 5 or 9" in errors
    assert sorted(p.name for p in out.glob("*.mp4")) == ["00002.mp4", "00006.mp4", "dog.mp4"]
    assert json.loads((out / "dog.json").read_text())["request"]["seed"] == 7

    # the second time only jobs that are not done: a changed line, and one whose result was removed
    (out / "00006.mp4").unlink()
    jobs.write_text(jobs.read_text().replace('"frames": 6', '"frames": 1').replace('"seed": 7', '"seed": 8'))
    before = (out / "00002.mp4").stat().st_mtime_ns
    status, events, errors = run(checkpoint, "--prompt-file", jobs, "--output", f"{out}/")
    assert status == 0, errors
    states = [(event["line"], event["state"]) for event in events if event["event"] == "job_done"]
    assert states == [(2, "done before"), (3, "done"), (4, "done"), (6, "done")]
    assert (out / "00002.mp4").stat().st_mtime_ns == before


def test_frames_are_done_before_too(checkpoint: Path, tmp_path: Path) -> None:
    """A folder of frames that is there is the result of its line, or in the way of another one."""
    jobs, out = tmp_path / "jobs.txt", tmp_path / "out"
    fox, dog = {"prompt": "a fox", "output": "fox/"}, {"prompt": "a dog", "output": f"{tmp_path}/dog/"}
    jobs.write_text(f"{json.dumps(fox)}\n{json.dumps(dog)}\n")
    for wanted in ("done", "done before"):
        status, events, errors = run(checkpoint, "--prompt-file", jobs, "--output", f"{out}/")
        assert (status, errors) == (0, "")
        assert [event["state"] for event in events if event["event"] == "job_done"] == [wanted] * 2
        assert len(list((out / "fox").glob("*.png"))) == len(list((tmp_path / "dog").glob("*.png"))) == 5
    status, events, _ = run(checkpoint, "--prompt-file", jobs, "--output", f"{out}/", "--dry-run")
    assert [event["state"] for event in events if event["event"] == "job_done"] == ["done before"] * 2
    jobs.write_text(jobs.read_text().replace("a fox", "a cat"))
    status, events, errors = run(checkpoint, "--prompt-file", jobs, "--output", f"{out}/")
    assert status == 1
    assert [event["state"] for event in events if event["event"] == "job_done"] == ["failed", "done before"]
    assert "already contains frames" in errors


def test_a_dry_run_loads_nothing(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("a fox\n")
    status, events, _ = run(checkpoint, "--prompt-file", tmp_path / "jobs.txt", "--dry-run")
    assert status == 0
    assert [event["event"] for event in events] == ["job", "job_done"]
    assert events[1]["state"] == "planned"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "x"], "--prompt and --prompt-file exclude each other"),
        (["--output", "x.mp4"], "--output 'x.mp4': with --prompt-file it must be a folder"),
        (["--dump-tensors", "x.safetensors"], "cannot be used with --prompt-file"),
    ],
)
def test_options_that_mean_one_run_are_refused(
    arguments: list[str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "jobs.txt").write_text("a fox\n")
    status, _, errors = run(checkpoint, "--prompt-file", tmp_path / "jobs.txt", *arguments)
    assert status == 2
    assert message in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no jobs"),
        ("# only a comment\n", "has no jobs"),
        ('{"prompt": "x"\n', r"jobs\.txt, line 1: line 1, column"),
        ('{"output": 3}\n', "line 1: output must be a path, got 3"),
        ('{"output": "a.mp4"}\n{"output": "a.mp4"}\n', "several jobs write"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_jobs(path, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_jobs(tmp_path / "none.txt", None)


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_ends_a_line(tmp_path: Path, inside: str, end: str) -> None:
    """LF, CR LF and CR; nothing else that Unicode knows as the end of a line, which copied text is full of."""
    jobs = tmp_path / "jobs.txt"
    lines = [
        f"a fox{inside}in the snow",
        f'{{"prompt": "a dog{inside}runs", "seed": 3}}',
        inside,
        f"{inside}# a cat",
    ]
    if ord(inside) < 0x20:  # JSON has no such characters in a text
        del lines[1]
    jobs.write_bytes(end.join(lines).encode())
    found = [(job.number, dict(job.request)) for job in read_jobs(jobs, None)]
    wanted = [(1, {"prompt": f"a fox{inside}in the snow"}), (len(lines), {"prompt": f"{inside}# a cat"})]
    if len(lines) == 4:
        wanted.insert(1, (2, {"prompt": f"a dog{inside}runs", "seed": 3}))
    assert found == wanted
