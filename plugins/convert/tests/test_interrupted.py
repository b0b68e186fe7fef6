"""Interrupted and killed conversions resume, and never leave a loadable file. Memory."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from safetensors.torch import load_file  # noqa: E402

from lightx2v_convert import workspace  # noqa: E402
from lightx2v_convert.conversion import convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core.builtin.safetensors_file import read_header  # noqa: E402
from lightx2v_core.errors import CheckpointError, OutputError  # noqa: E402
from lightx2v_core.events import Event, Progress  # noqa: E402
from lightx2v_core.testing.headers import write_sparse_safetensors  # noqa: E402

INT8 = ConvertOptions(quantize="int8")


def write_source(path: Path, blocks: int = 6, side: int = 32) -> None:
    torch.manual_seed(0)
    tensors = {f"blocks.{i}.fc.weight": torch.randn(side, side) for i in range(blocks)}
    tensors |= {f"blocks.{i}.fc.bias": torch.randn(side) for i in range(blocks)}
    save_file(tensors, path)


def loading(folder: Path) -> list[Path]:
    """Files that a reader takes for weights; the work in progress must not be among them."""
    found = []
    for path in folder.rglob("*"):
        try:
            read_header(path)
        except (CheckpointError, OSError):
            continue
        if path.suffix == ".safetensors":
            found.append(path)
    return found


def stopping_after(count: int) -> Any:
    seen: list[Progress] = []

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append(event)
            if len(seen) > count:
                raise KeyboardInterrupt

    return seen, emit


@pytest.mark.parametrize("split", ["single", "blocks"])
@pytest.mark.parametrize("tensors", [1, 4, 13, 17])
def test_an_interrupted_conversion_goes_on(split, tensors, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "_NOTE", 1)
    write_source(tmp_path / "source.safetensors")
    (tmp_path / "work").mkdir()
    options = ConvertOptions(quantize="int8", split=split, report=True)
    out = tmp_path / "work" / ("out" if split == "blocks" else "out.safetensors")
    whole = convert(tmp_path / "source.safetensors", tmp_path / f"whole{out.suffix}", options)
    _, emit = stopping_after(tensors)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "source.safetensors", out, options, emit=emit)
    assert loading(tmp_path / "work") == []
    assert not out.exists()
    seen, emit = stopping_after(10_000)
    again = convert(tmp_path / "source.safetensors", out, options, emit=emit)
    assert seen[0].done > 0, "what was done is not done again"
    assert len(seen) == 1 + 18 - tensors
    assert len(again.report) == 6
    assert again.report == whole.report, "what was measured before the interrupt is kept"
    for made, wanted in zip(again.files, whole.files, strict=True):
        assert made.read_bytes() == wanted.read_bytes()
    assert [p.name for p in (tmp_path / "work").iterdir()] == [out.name]


def test_another_job_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "_NOTE", 1)
    write_source(tmp_path / "source.safetensors")
    _, emit = stopping_after(5)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "source.safetensors", tmp_path / "out.safetensors", INT8, emit=emit)
    seen, emit = stopping_after(10_000)
    fp8 = ConvertOptions(quantize="fp8")
    convert(tmp_path / "source.safetensors", tmp_path / "out.safetensors", fp8, emit=emit)
    assert seen[0].done == 0
    assert load_file(tmp_path / "out.safetensors")["blocks.0.fc.weight"].dtype == torch.float8_e4m3fn


def test_a_full_disk_is_said_and_what_is_done_is_kept(tmp_path, monkeypatch):
    write_source(tmp_path / "source.safetensors")
    real = os.fsync

    def full(handle: int) -> None:
        real(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device; the progress is kept"):
        convert(tmp_path / "source.safetensors", tmp_path / "out.safetensors", INT8)
    monkeypatch.setattr(os, "fsync", real)
    convert(tmp_path / "source.safetensors", tmp_path / "out.safetensors", INT8)
    assert len(load_file(tmp_path / "out.safetensors")) == 18


@pytest.mark.load
@pytest.mark.slow
def test_killed_at_random_moments_nothing_loads_until_it_is_whole(tmp_path):
    write_source(tmp_path / "source.safetensors", blocks=24, side=512)
    whole = convert(
        tmp_path / "source.safetensors", tmp_path / "whole", ConvertOptions(quantize="fp8", split="blocks")
    )
    work = tmp_path / "work"
    work.mkdir()
    command = [
        sys.executable, "-m", "lightx2v_core", "convert", str(tmp_path / "source.safetensors"), "--quantize", "fp8",
        "--split", "blocks", "--json", "--output", str(work / "out"),
    ]  # fmt: skip
    choose = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = choose.randint(2, 14)
        for _ in range(lines):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if (work / "out").exists():
            break  # it was quicker than the kill
        assert loading(work) == []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["layers"] == 24
    for file in whole.files:
        assert (work / "out" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_three_gigabytes_are_converted_in_little_memory(tmp_path):
    shapes = {f"blocks.{i}.ffn.{j}.weight": (13824, 5120) for i in range(10) for j in (0, 2)}
    shapes |= {"embed.weight": (32000, 2600)}
    write_sparse_safetensors(tmp_path / "source.safetensors", shapes, "BF16")
    assert (tmp_path / "source.safetensors").stat().st_size > 2.9e9
    code = (
        "import resource, sys, torch; from lightx2v_core.cli import main\n"
        # builds for GPUs take a part of a GB to import
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", str(tmp_path / "source.safetensors"), "--quantize", "fp8",
         "--output", str(tmp_path / "out.safetensors"), "--quiet"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    used = (int(lines[-1]) - int(lines[0])) * (1 if sys.platform == "darwin" else 1024)
    assert used < 0.95e9, f"{used / 1e9:.2f} GB"
