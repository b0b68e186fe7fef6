"""Whole runs of the command line against the official pipelines: from prompts and images to latents and frames."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file


def check(folder, case, name, tmp_path, *options):
    """Run a case and compare its latents and frames.

    The negative prompt is absent on purpose: the default is the official one.
    """
    run = case["runs"][name]
    line = [
        sys.executable, "-m", "lightx2v_core", "run", *options, "--model-path", folder / "ckpt",
        "--dtype", "float32", "--prompt", run["prompt"], "--frames", run["frame_num"], "--shift", run["shift"],
        "--seed", run["seed"], "--output", tmp_path / "out.mp4", "--dump-tensors", tmp_path / "dump.safetensors",
    ]  # fmt: skip
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").is_file()
    dump, expected = load_file(tmp_path / "dump.safetensors"), load_file(folder / "outputs.safetensors")
    for key, output in (("latents", "latents"), ("video", "frames")):
        tolerance = case["tolerance"][output]
        torch.testing.assert_close(
            dump[key],
            expected[f"{name}.{output}"].float(),
            atol=tolerance["atol"],
            rtol=tolerance.get("rtol", 0.0),
        )


def guided(run):
    """Options for steps and guidance; as in the official code, cases list the scale of the low-noise expert first."""
    scales = run["guide_scale"]
    scales = reversed(scales) if isinstance(scales, list) else [scales]
    return ["--steps", run["sampling_steps"], "--guide-scale", ",".join(map(str, scales))]


def test_t2v_a14b(golden, read_json, tmp_path):
    folder = golden("e2e_wan22_t2v_a14b")
    case = read_json(folder / "case.json")
    run = case["runs"]["unipc"]
    size = "{}x{}".format(*run["size"])
    check(folder, case, "unipc", tmp_path, "--task", "t2v", "--size", size, *guided(run))


def test_distilled_t2v_a14b(golden, read_json, tmp_path):
    folder = golden("e2e_wan22_t2v_a14b")
    case = read_json(folder / "case.json")
    run = case["runs"]["distill"]
    config = tmp_path / "config.json"
    options = {"wan2.2-a14b": {"boundary_step_index": run["boundary_step_index"]}}
    config.write_text(json.dumps({"model": {"use": ["wan2.2-a14b"], "options": options}}), encoding="utf-8")
    size = "{}x{}".format(*run["size"])
    check(folder, case, "distill", tmp_path, config, "--scheduler", "distill", "--size", size)


def test_i2v_a14b(golden, read_json, tmp_path):
    folder = golden("e2e_wan22_i2v_a14b")
    case = read_json(folder / "case.json")
    run = case["runs"]["unipc"]
    # any size of that area will do: the image decides the aspect
    inputs = ["--image", folder / run["image"], "--size", f"64x{run['max_area'] // 64}"]
    check(folder, case, "unipc", tmp_path, "--task", "i2v", *inputs, *guided(run))


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_ti2v_5b(task, golden, read_json, tmp_path):
    folder = golden("e2e_wan22_ti2v_5b")
    case = read_json(folder / "case.json")
    run = case["runs"][task]
    if task == "t2v":
        inputs = ["--size", "{}x{}".format(*run["size"])]
    else:
        inputs = ["--image", folder / run["image"], "--size", f"96x{run['max_area'] // 96}"]
    check(folder, case, task, tmp_path, "--task", task, *inputs, *guided(run))
