"""Whole runs of i2v, flf2v and vace against the official pipelines."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_core import load


def command(*arguments):
    line = [sys.executable, "-m", "lightx2v_core", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def close(got, expected, tolerance):
    torch.testing.assert_close(got, expected, atol=tolerance["atol"], rtol=tolerance.get("rtol", 0.0))


@pytest.mark.parametrize(
    ("task", "images"),
    [("i2v", {"--image": "image"}), ("flf2v", {"--image": "first", "--last-image": "last"})],
)
def test_a_run_from_images_equals_the_official_one(task, images, golden, tmp_path):
    folder = golden(f"e2e_wan21_{task}")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    run, expected = case["runs"]["unipc"], load_file(folder / "outputs.safetensors")
    inputs = [part for option, name in images.items() for part in (option, folder / run[name])]
    # any size of that area will do: the image decides the aspect
    done = command(
        "run", "--model-path", folder / "ckpt", "--task", task, "--dtype", "float32", *inputs,
        "--prompt", run["prompt"], "--size", f"64x{run['max_area'] // 64}", "--frames", run["frame_num"],
        "--steps", run["sampling_steps"], "--shift", run["shift"], "--guide-scale", run["guide_scale"],
        "--seed", run["seed"], "--output", tmp_path / "out.mp4", "--dump-tensors", tmp_path / "dump.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dump = load_file(tmp_path / "dump.safetensors")
    close(dump["latents"], expected["unipc.latents"], case["tolerance"]["latents"])
    close(dump["video"], expected["unipc.frames"].float(), case["tolerance"]["frames"])


@pytest.fixture(scope="module")
def vace(golden):
    folder = golden("e2e_wan21_vace")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    return folder, case, *tensors


def official(run):
    return {
        "prompt": run["prompt"], "negative_prompt": run["negative_prompt"], "size": tuple(run["size"]),
        "frames": run["frame_num"], "steps": run["sampling_steps"], "shift": run["shift"], "seed": run["seed"],
        "guide_scale": (run["guide_scale"],),
    }  # fmt: skip


def test_a_run_from_a_video_and_a_mask_equals_the_official_one(vace):
    folder, case, inputs, expected = vace
    pipeline = load(folder / "ckpt", dtype="float32")
    video = pipeline.generate(
        **official(case["runs"]["video_mask"]),
        src_video=inputs["video_mask.src_video"],
        src_mask=inputs["video_mask.src_mask"],
    )
    close(video.latents, expected["video_mask.latents"], case["tolerance"]["latents"])
    close(video.frames, expected["video_mask.frames"].float(), case["tolerance"]["frames"])


def test_a_run_from_reference_images_equals_the_official_one(vace):
    folder, case, _, expected = vace
    run = case["runs"]["ref_images"]
    options = {"use": ["wan2.1"], "options": {"wan2.1": {"vace_scale": run["context_scale"]}}}
    pipeline = load(folder / "ckpt", dtype="float32", config={"model": options})
    video = pipeline.generate(**official(run), ref_images=[str(folder / name) for name in run["ref_images"]])
    close(video.latents, expected["ref_images.latents"], case["tolerance"]["latents"])
    close(video.frames, expected["ref_images.frames"].float(), case["tolerance"]["frames"])
