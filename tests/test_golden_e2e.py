"""Whole runs of the command line against the official pipeline: prompt in, latents and frames out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

Golden = Callable[[str], Path]
RUNS = ("unipc", "dpmpp", "single_frame")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_the_official_one(name: str, golden: Golden, tmp_path: Path) -> None:
    folder = golden("e2e_wan21_t2v")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    run = case["runs"][name]
    expected = load_file(folder / "outputs.safetensors")
    output = tmp_path / ("out.png" if run["frame_num"] == 1 else "out.mp4")
    # the negative prompt is left out on purpose: absent means the official one
    done = command(
        "run", "--model-path", folder / "ckpt", "--task", "t2v", "--dtype", "float32", "--prompt", run["prompt"],
        "--size", "{}x{}".format(*run["size"]), "--frames", run["frame_num"], "--shift", run["shift"],
        "--scheduler", run["sample_solver"], "--steps", run["sampling_steps"],
        "--guide-scale", run["guide_scale"], "--seed", run["seed"],
        "--output", output, "--dump-tensors", tmp_path / "dump.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert output.is_file()
    dump = load_file(tmp_path / "dump.safetensors")
    close(dump["latents"], expected[f"{name}.latents"], case["tolerance"]["latents"])
    close(dump["video"], expected[f"{name}.frames"].float(), case["tolerance"]["frames"])
    assert dump["latents"].dtype == dump["video"].dtype == torch.float32
    assert dump["video"].abs().max() <= 1


def test_a_distilled_run_equals_the_original_one(golden: Golden, tmp_path: Path) -> None:
    folder = golden("e2e_wan21_t2v")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if "distill" not in case["runs"]:
        pytest.skip("the distilled run is in the full set of fixtures only")
    run, expected = case["runs"]["distill"], load_file(folder / "outputs.safetensors")
    done = command(
        "run", "--model-path", folder / "ckpt", "--prompt", run["prompt"], "--scheduler", "distill",
        "--size", "{}x{}".format(*run["size"]), "--frames", run["frame_num"], "--shift", run["shift"],
        "--seed", run["seed"], "--output", tmp_path / "out.mp4", "--dump-tensors", tmp_path / "dump.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dump = load_file(tmp_path / "dump.safetensors")
    close(dump["latents"], expected["distill.latents"], case["tolerance"]["latents"])
    close(dump["video"], expected["distill.frames"].float(), case["tolerance"]["frames"])


@pytest.mark.parametrize("batched", [False, True])
def test_frames_are_those_that_the_official_code_saves(batched: bool, golden: Golden, tmp_path: Path) -> None:
    """A folder of PNGs holds the official uint8 frames, also when both guidance passes run as one batch."""
    folder = golden("e2e_wan21_t2v")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    run, expected = case["runs"]["unipc"], load_file(folder / "outputs.safetensors")
    frames = (
        ((expected["unipc.frames"].float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).permute(1, 2, 3, 0)
    )
    done = command(
        "run", "--model-path", folder / "ckpt", "--dtype", "float32", "--prompt", run["prompt"],
        "--negative-prompt", run["negative_prompt"], "--size", "96x64", "--frames", 9, "--steps", 4,
        "--set", f"sampling.batched_guidance={str(batched).lower()}", "--output", f"{tmp_path}/frames/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "frames").glob("*.png")) == [f"{i:05d}.png" for i in range(9)]
    for i, frame in enumerate(frames):
        got = read_png(tmp_path / "frames" / f"{i:05d}.png")
        assert (got.int() - frame.int()).abs().max() <= 2, f"frame {i}"


def test_a_seed_decides_the_video_and_nothing_else_does(golden: Golden, tmp_path: Path) -> None:
    """One loaded pipeline serves requests in any order with the same result as a fresh one."""
    from lightx2v_core import load

    ckpt = golden("e2e_wan21_t2v") / "ckpt"
    small = {"size": (32, 32), "frames": 5, "steps": 3, "prompt": "a red fox"}
    pipeline = load(ckpt)
    first = pipeline.generate(**small, seed=1)
    other = pipeline.generate(**small, seed=2, guide_scale=1.0, scheduler="euler", shift=3.0)
    again = pipeline.generate(**small, seed=1)
    fresh = load(ckpt, **small, seed=1).generate()
    assert not torch.equal(first.latents, other.latents)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.frames, fresh.frames)
    assert fresh.save(tmp_path / "fox.mp4").is_file()
    assert json.loads((tmp_path / "fox.json").read_text())["request"]["seed"] == 1


def test_an_unchanged_prompt_is_encoded_once(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightx2v_core import load

    pipeline = load(golden("e2e_wan21_t2v") / "ckpt", size=(32, 32), frames=1, steps=1)
    encoder = pipeline.module("text_encoder")
    calls: list[Any] = []
    encoder.register_forward_hook(lambda *args: calls.append(args))
    for prompt in ("a fox", "a fox", "a dog", "a fox"):
        pipeline.generate(prompt=prompt)
    assert len(calls) == 3  # the fox, the dog and the negative prompt


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lightx2v_core", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


def close(got: Any, expected: Any, tolerance: dict[str, float]) -> None:
    torch.testing.assert_close(got, expected, atol=tolerance["atol"], rtol=tolerance.get("rtol", 0.0))


def read_png(path: Path) -> Any:
    import av

    with av.open(str(path)) as container:
        return torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24"))
