"""The command line: limits, automatic selection, and faults during a run."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

SMALL = ("--size", "32x32", "--frames", "5", "--prompt", "a fox", "--seed", "7")


def command(*line):
    return [sys.executable, "-m", "lightx2v_core", *map(str, line)]


def call(*line, status=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*line), capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture
def model(models, tmp_path):
    return shutil.copytree(models("t2v"), tmp_path / "model")


def at_the_first_step(model, output, event, *more):
    """Start a run that reads its network from disk and call ``event`` with the process after the first step; return
    exit status, last JSON event and stderr."""
    line = command(
        "run", "--model-path", model, *SMALL, "--steps", "200", "--offloader", "disk", "--json", *more
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*line, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        last, happened = {}, False
        for text in process.stdout:
            last = json.loads(text)
            if last["event"] == "step" and not happened:
                event(process)
                happened = True
        errors = process.stderr.read()
    assert happened
    return process.returncode, last, errors


@pytest.mark.load
def test_a_file_that_is_truncated_in_the_middle_of_a_run(model, tmp_path):
    shard = model / "diffusion_pytorch_model-00001-of-00002.safetensors"
    size = shard.stat().st_size

    status, last, errors = at_the_first_step(
        model, tmp_path / "out" / "fox.mp4", lambda _process: os.truncate(shard, size // 2)
    )
    assert status == 1
    assert last["event"] == "error"
    assert str(shard) in last["message"]
    assert "while in use" in last["message"]
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.load
def test_an_interrupt_in_the_middle_of_a_run(model, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = json.dumps({"use": "disk", "options": {"disk": {"scratch": str(scratch)}}})
    status, last, errors = at_the_first_step(
        model,
        tmp_path / "out" / "fox.mp4",
        lambda process: process.send_signal(signal.SIGINT),
        "--dtype", "bfloat16", "--set", f"offloader={options}",
    )  # fmt: skip
    assert (status, last["message"]) == (130, "interrupted")
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").glob("*"))
    assert not list(scratch.iterdir())


def test_results_equal_those_without_offload(model, tmp_path):
    """One file instead of two shards, with a part of the network in another dtype."""
    tensors = {}
    for shard in sorted(model.glob("diffusion_pytorch_model*")):
        if shard.suffix == ".safetensors":
            tensors |= load_file(shard)
        shard.unlink()
    mixed = {name: tensor.half() if ".ffn." in name else tensor for name, tensor in tensors.items()}
    save_file(mixed, model / "diffusion_pytorch_model.safetensors")
    line = ("run", "--model-path", model, *SMALL, "--steps", "2", "--no-record", "--quiet")
    call(*line, "--output", tmp_path / "a.mp4", "--dump-tensors", tmp_path / "a.safetensors")
    call(
        *line, "--offloader", "disk", "--ram-limit", "1GB", "--output", tmp_path / "b.mp4",
        "--dump-tensors", tmp_path / "b.safetensors",
    )  # fmt: skip
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_plan_says_what_stays_and_what_it_costs(models):
    line = ("plan", "--model-path", models("t2v"), *SMALL, "--offloader", "disk")
    found = call(*line).stdout
    assert "offload   disk: 0 of 5 blocks of dit stay in memory, the others are streamed" in found
    assert " per step; " in found
    assert call(*line, "--json").stdout.count('"moved":') == 1


def test_auto_takes_the_least_costly_that_fits(models):
    line = ("plan", "--model-path", models("t2v"), *SMALL, "--offloader", "auto")
    found = call(*line, "--ram-limit", "20GB").stdout
    assert "offloader core/none (auto: the least costly that fits 20.00 GB of host memory" in found
    low = call(*line, "--ram-limit", "100MB", status=2).stderr
    assert "no offloader fits 0.10 GB of host memory:" in low
    for name in ("none", "sequential", "disk", "cpu (granularity=model)"):
        assert f"  {name}: 0." in low
    assert "raise --ram-limit to one of the values above" in low
