"""Planning a 14B model from its headers: quick, small, and without torch."""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")


def models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_headers", Path(__file__).with_name("real_headers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan2.1-T2V-14B with every header and no data: sparse files of 69 GB in all."""
    root = tmp_path_factory.mktemp("models") / "Wan2.1-T2V-14B"
    root.mkdir()
    make = models()
    make.write_model(root, root.name)
    if make.has_no_holes(root):
        pytest.skip("this file system has no sparse files")
    return root


@pytest.mark.load
@pytest.mark.alone
def test_a_14b_plan_takes_two_seconds_and_500_mb_at_most(folder: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "lightx2v_core",
        "plan",
        "--model-path",
        str(folder),
        "--dtype",
        "bfloat16",
        "--json",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of the processor, so that what else the machine does is not counted
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0, done.stderr
    peak = after.ru_maxrss * 1024
    assert seconds < 2, f"{seconds:.2f} s"
    assert peak < 500e6 or peak_of(line) < 500e6, f"{peak / 1e6:.0f} MB"

    plan = json.loads(done.stdout)["plan"]
    assert plan["variant"] == "wan2.1-t2v-14b"
    parts = {part["name"]: part for part in plan["components"]}
    assert parts["dit"]["parameters"] == 14_288_491_584
    assert len(parts["dit"]["files"]) == 6
    assert parts["text_encoder"]["parameters"] == 5_680_910_336
    assert parts["vae"]["parameters"] == 126_892_531
    assert plan["geometry"]["latent_shape"] == [16, 21, 90, 160]
    assert plan["geometry"]["tokens"] == 75_600
    # bfloat16 weights, and the few float32 tensors: the forecast is that of the loaded model
    assert parts["dit"]["weights"] / 2**30 == pytest.approx(26.9, abs=0.5)
    assert plan["memory"]["device_peak"] > plan["memory"]["device_weights"] > 37 * 2**30


def test_planning_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom lightx2v_core.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n"
        "    heavy = {'torch', 'numpy', 'av', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "    print('heavy:', *heavy)"
    )
    line = [sys.executable, "-c", code, "plan", "--model-path", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1].strip() == "heavy:", done.stdout + done.stderr


def test_weights_that_cannot_fit_are_refused_before_they_are_read(folder: Path) -> None:
    from lightx2v_core.plan.device import host_memory

    if host_memory() > 70 * 2**30:
        pytest.skip("this machine can hold the weights")
    line = [sys.executable, "-m", "lightx2v_core", "run", "--model-path", str(folder), "--prompt", "x"]
    done = subprocess.run(
        [*line, "--output", str(folder / "x.mp4"), "--device", "cpu"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "74.9 GiB of weights" in done.stderr
    assert "smaller --dtype" in done.stderr
    assert not (folder / "x.mp4").exists()


def peak_of(line: list[str]) -> int:
    """Peak memory of one command alone (the figure of all children keeps the largest ever)."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    return int(subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True).stdout)
