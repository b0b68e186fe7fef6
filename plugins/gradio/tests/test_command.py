"""The subcommand: refusals and the plan; and the names of results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from lightx2v_gradio.results import free_name, output_folder, result_path, upload_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "add --auth USER:PASSWORD or --token"),
        (["--auth", "me"], "--auth takes USER:PASSWORD"),
        (["--model_size", "14b"], "--model_size 14b does not match the folder, which has wan2.1-t2v-164k"),
        (["--task", "i2v"], "supports t2v, not 'i2v'"),
        (["--model-path", "/nowhere"], "does not exist"),
        (["--lora", "/nowhere.safetensors"], "does not exist"),
        (["--port", "1", "--host", "127.0.0.1"], ""),
    ],
)
def test_the_command_refuses_what_is_wrong(
    model: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    if options[0] == "--port" and os.geteuid() == 0:
        pytest.skip("root may use port 1")
    words = ["ui", "--model-path", str(model), "--output", str(tmp_path / "out"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 8


def test_the_command_plans(model: Path) -> None:
    words = [
        "ui",
        "--model_path",
        str(model),
        "--model_size",
        "164k",
        "--task",
        "t2v",
        "--model_cls",
        "wan2.1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *words, "--dry-run"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wan2.1-t2v-164k")


def test_names_of_results_tell_what_they_are(tmp_path: Path) -> None:
    from datetime import datetime

    now = datetime(2026, 11, 21, 15, 0, 5)
    name = free_name("A réd fox, <b>runs</b>! in the deep snow", 7, one_frame=False, now=now)
    assert name.startswith("20261121-150005_a-red-fox-b-runs-b_seed7_")
    folder = output_folder(str(tmp_path / "out"))
    for prompt in ("狐狸", "../../x", "x" * 5000, ""):
        file = free_name(prompt, 1, one_frame=True, now=now)
        (folder / file).touch()
        assert result_path(folder, file) == folder / file
    assert len({free_name("same", 1, one_frame=False, now=now) for _ in range(50)}) == 50


def test_uploads_are_told_from_other_files(tmp_path: Path) -> None:
    folder = output_folder(str(tmp_path / "out"))
    file = folder / "uploads" / "a" / "fox.png"
    file.parent.mkdir()
    file.touch()
    (folder / "uploads" / "link.png").symlink_to("/etc/passwd")
    assert upload_path(folder, str(file)) == file
    for path in (folder / "uploads" / "link.png", folder / "uploads", "fox.png", "/etc/passwd", f"{file}\0"):
        assert upload_path(folder, str(path)) is None
