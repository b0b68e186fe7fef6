"""Whole runs: the output is complete and records how it was made; a run that ends early leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from safetensors.torch import load_file

from lightx2v_core.checkpoint.staging import unwritten

SMALL = ("--prompt", "a red fox", "--size", "32x32", "--frames", "5", "--steps", "2", "--device", "cpu")
Process = Callable[..., "subprocess.Popen[str]"]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def video_facts(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = len(list(container.decode(stream)))
        return context.name, context.pix_fmt, context.width, context.height, stream.average_rate, frames


def comment(path: Path) -> str | None:
    with av.open(str(path)) as container:
        return container.metadata.get("comment")


def test_a_video_and_its_record(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    cli("run", "--model-path", tiny, *SMALL, "--fps", "12.5", "--output", out / "new" / "o.mp4").succeeded()
    assert names(out) == ["new", "new/o.json", "new/o.mp4"]
    assert video_facts(out / "new" / "o.mp4") == ("h264", "yuv420p", 32, 32, 12.5, 5)
    record = json.loads((out / "new" / "o.json").read_text(encoding="utf-8"))
    inside = json.loads(comment(out / "new" / "o.mp4") or "")
    assert record["request"]["prompt"] == "a red fox"
    assert record["request"]["steps"] == 2
    assert inside["request"] == record["request"]
    assert inside["components"] == record["components"]
    assert set(record["seconds"]) == {"load", "encode", "denoise", "decode"}
    assert len(record["step_seconds"]) == 2


@pytest.mark.parametrize("length", [39, 60, 200])
def test_names_that_are_long_and_differ_at_their_ends(
    tiny: Path, cli: Callable[..., Any], out: Path, length: int
) -> None:
    stem = "o" * length
    dump = out / f"{stem}.safetensors"
    cli(
        "run", "--model-path", tiny, *SMALL, "--output", out / f"{stem}.mp4", "--dump-tensors", dump
    ).succeeded()
    assert names(out) == [f"{stem}.json", f"{stem}.mp4", f"{stem}.safetensors"]


def test_no_record(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    cli("run", "--model-path", tiny, *SMALL, "--no-record", "--output", out / "o.mp4").succeeded()
    assert names(out) == ["o.mp4"]
    assert comment(out / "o.mp4") is None


def test_images_dumps_and_a_folder_that_does_not_exist_yet(
    tiny: Path, cli: Callable[..., Any], out: Path
) -> None:
    dump = out / "d" / "dump.safetensors"
    cli("run", "--model-path", tiny, *SMALL, "--output", f"{out}/frames/", "--dump-tensors", dump).succeeded()
    images = [f"frames/{i:05d}.png" for i in range(5)]
    assert names(out) == ["d", "d/dump.safetensors", "frames", *images, "frames/record.json"]
    tensors = load_file(dump)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "latents": (16, 2, 4, 4),
        "video": (3, 5, 32, 32),
    }
    assert tensors["video"].abs().max() <= 1
    # the images are the dumped video by the official rule
    expected = ((tensors["video"] + 1) / 2 * 255).byte()
    for i, image in enumerate(images):
        with av.open(str(out / image)) as container:
            plane = next(container.decode(video=0)).reformat(format="rgb24").planes[0]
            rows = [bytes(plane)[y * plane.line_size :][: 32 * 3] for y in range(32)]
        assert b"".join(rows) == bytes(expected[:, i].permute(1, 2, 0).reshape(-1).tolist())


def test_a_folder_whose_name_has_a_dot(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    cli("run", "--model-path", tiny, *SMALL, "--output", f"{out}/fox.v2/").succeeded()
    assert "fox.v2/record.json" in names(out)
    assert "fox.json" not in names(out)


def test_one_frame_as_an_image(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    cli("run", "--model-path", tiny, *SMALL, "--frames", "1", "--output", out / "o.png").succeeded()
    assert names(out) == ["o.json", "o.png"]


def test_a_finished_output_replaces_the_one_before(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    (out / "o.mp4").write_bytes(b"before")
    cli("run", "--model-path", tiny, *SMALL, "--output", out / "o.mp4").succeeded()
    first = (out / "o.mp4").read_bytes()
    assert first != b"before"
    cli("run", "--model-path", tiny, *SMALL, "--seed", "7", "--output", out / "o.mp4").succeeded()
    assert (out / "o.mp4").read_bytes() != first
    assert json.loads((out / "o.json").read_text())["request"]["seed"] == 7


def test_a_dry_run_writes_nothing(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    result = cli("run", "--model-path", tiny, *SMALL, "--output", out / "o.mp4", "--dry-run")
    result.succeeded()
    assert names(out) == []


def test_events_in_json_end_with_what_was_saved(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    result = cli("run", "--model-path", tiny, *SMALL, "--output", out / "o.mp4", "--json")
    result.succeeded()
    events = [json.loads(line) for line in result.out.splitlines()]
    assert events[0]["event"] == "plan"
    assert sum(event["event"] == "step" for event in events) == 2
    assert events[-1] == {
        "event": "saved", "path": str(out / "o.mp4"), "record": str(out / "o.json"), "frames": 5
    }  # fmt: skip


@pytest.mark.load
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("output", ["o.mp4", "frames/"])
def test_an_interrupted_run_leaves_nothing(
    process: Process, tmp_path: Path, number: signal.Signals, output: str
) -> None:
    (tmp_path / "o.mp4").write_bytes(b"before")
    job = process(
        "--steps", "900", "--output", f"{tmp_path}/{output}", "--json",
        "--dump-tensors", tmp_path / "new" / "d.safetensors",
    )  # fmt: skip
    assert job.stdout is not None
    for line in job.stdout:
        if json.loads(line)["event"] == "step":
            break
    job.send_signal(number)
    rest, errors = job.communicate(timeout=120)
    assert job.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted; nothing was left behind" in errors
    assert json.loads(rest.splitlines()[-1])["event"] == "error"
    assert names(tmp_path) == ["o.mp4"]
    assert (tmp_path / "o.mp4").read_bytes() == b"before"


@pytest.mark.load
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_while_writing(process: Process, tmp_path: Path, number: signal.Signals) -> None:
    slow = """
import lightx2v_core.runtime.video as video, time
write = video._Mp4.write
def slowly(self, frames):
    write(self, frames)
    print("writing", flush=True)
    time.sleep(60)
video._Mp4.write = slowly
"""
    job = process("--output", tmp_path / "o.mp4", "--quiet", before=slow)
    assert job.stdout is not None
    assert job.stdout.readline() == "writing\n"
    assert any("part-" in name for name in names(tmp_path))
    started = time.monotonic()
    job.send_signal(number)
    _, errors = job.communicate(timeout=50)
    assert time.monotonic() - started < 30
    assert job.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted; nothing was left behind"
    assert "Traceback" not in errors
    assert "PyAV" not in errors
    assert names(tmp_path) == []


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (@, @))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of file sizes")
@pytest.mark.parametrize(
    ("limit", "output", "failing"),
    # the tensors take 62 kB, the video and the record a few kB each
    [(500, "o.mp4", "o.mp4"), (500, "frames/", "frames"), (40_000, "o.mp4", "d.safetensors"),
     (40_000, "frames/", "d.safetensors")],
)  # fmt: skip
def test_a_disk_that_is_full_leaves_nothing(
    process: Process, tmp_path: Path, limit: int, output: str, failing: str
) -> None:
    (tmp_path / "o.json").write_text('{"lightx2v_record": 1}')
    dump = ("--dump-tensors", tmp_path / "new" / "d.safetensors") if limit > 500 else ("--no-record",)
    job = process(
        "--output", f"{tmp_path}/new/{output}", "--quiet", *dump, before=LIMITED.replace("@", str(limit))
    )
    out, errors = job.communicate(timeout=120)
    assert job.returncode == 1, errors
    assert out == ""
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    assert f"{failing}' could not be written: File too large; nothing was left behind" in errors
    assert names(tmp_path) == ["o.json"]


def failing_writes(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Every attempt to fill a small file for a target with this suffix fails as on a full disk."""
    from lightx2v_core.checkpoint.staging import Staging

    write = Staging.bytes

    def full(self: Staging, path: Path, data: bytes) -> None:
        if path.suffix != suffix:
            write(self, path, data)
            return
        write(self, path, data[:10])
        with unwritten(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Staging, "bytes", full)


@pytest.mark.parametrize("output", ["o.mp4", "frames/"])
@pytest.mark.parametrize("failing", [".json", ".safetensors"])
def test_results_come_together_or_not_at_all(
    tiny: Path, cli: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch, output: str, failing: str
) -> None:
    failing_writes(monkeypatch, failing)
    result = cli(
        "run",
        "--model-path",
        tiny,
        *SMALL,
        "--output",
        f"{out}/{output}",
        "--dump-tensors",
        out / "d.safetensors",
    )
    result.failed(1, "could not be written: No space left on device; nothing was left behind")
    assert names(out) == []


def test_an_encoder_that_fails_at_the_end(
    tiny: Path, cli: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightx2v_core.runtime import video

    def close(self: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video._Mp4, "close", close)
    dump = out / "d.safetensors"
    result = cli("run", "--model-path", tiny, *SMALL, "--output", out / "o.mp4", "--dump-tensors", dump)
    result.failed(1, "o.mp4' could not be written: No space left on device; nothing was left behind")
    assert names(out) == []


def test_weights_that_vanish_after_planning(
    model: Path, cli: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightx2v_core.runtime import build

    real = build.build_model

    def late(*arguments: Any, **named: Any) -> Any:
        (model / "Wan2.1_VAE.pth").unlink()
        return real(*arguments, **named)

    monkeypatch.setattr("lightx2v_core.runtime.pipeline.build_model", late)
    result = cli("run", "--model-path", model, *SMALL, "--output", out / "o.mp4")
    result.failed(1, "Wan2.1_VAE.pth", "cannot be read")
    assert names(out) == []


def test_the_same_seed_is_the_same_video(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    for name in "ab":
        cli("run", "--model-path", tiny, *SMALL, "--no-record", "--output", f"{out}/{name}/").succeeded()
    first, second = ([path.read_bytes() for path in sorted((out / name).iterdir())] for name in "ab")
    assert len(first) == 5
    assert first == second
