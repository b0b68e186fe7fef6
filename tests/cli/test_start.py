"""What a run says before it begins, and what a plan says, in lines that fit a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.cli.width import cut, folded, width

SMALL = ("--prompt", "a fox", "--size", "32x32", "--frames", "5", "--steps", "1", "--device", "cpu")


def test_a_run_says_what_it_uses(tiny: Path, cli: Any, out: Path) -> None:
    """As the guides promise of the log: files with their folders, precision, kernels, offloader, guidance, notes."""
    done = cli(
        "run", "--model-path", tiny, *SMALL, "--set", "text_len=512", "--offloader", "sequential",
        "--guide-scale", "4", "--output", out / "o.mp4"
    )  # fmt: skip
    done.succeeded()
    said = " ".join(done.err.split("load done")[0].split())
    for words in (
        f"{tiny}/diffusion_pytorch_model", f"bfloat16, {tiny}/models_t5_umt5-xxl-enc-bf16.pth",
        f"vae: float32, {tiny}/Wan2.1_VAE.pth", "attention core/sdpa", "offloader core/sequential",
        "guidance 4, shift 5",
        f"output {out}/o.mp4", "note: text_len",
    ):  # fmt: skip
        assert words in said, (words, said)
    assert "replaces existing" not in said
    assert "warning" not in done.err


def test_a_batch_says_it_once(tiny: Path, cli: Any, out: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na cat\n", encoding="utf-8")
    done = cli("run", "--model-path", tiny, *SMALL[2:], "--prompt-file", prompts, "--output", out)
    done.succeeded()
    assert done.err.count("attention core/sdpa") == 1


def test_what_is_there_is_told_and_replaced_or_refused(tiny: Path, cli: Any, out: Path) -> None:
    line = ("--model-path", tiny, *SMALL, "--output", out / "o.mp4")
    assert "replaced" not in cli("plan", *line).unfolded
    cli("run", *line, "--no-overwrite").succeeded()
    before = (out / "o.mp4").read_bytes()
    assert "; replaces existing o.mp4 and o.json" in cli("plan", *line).unfolded
    for command in ("run", "plan"):
        cli(command, *line, "--seed", 3, "--no-overwrite").failed(
            2, "o.mp4' already exists", "--no-overwrite"
        )
    cli("run", *line, "--seed", 3, "--set", "output.overwrite=false").failed(2, "already exists")
    assert (out / "o.mp4").read_bytes() == before
    cli("run", *line, "--seed", 3).succeeded()
    assert (out / "o.mp4").read_bytes() != before
    (out / "o.mp4").unlink()  # its record alone is somebody's, too
    cli("run", *line, "--no-overwrite").failed(2, "o.json' already exists")
    cli("run", *line, "--no-overwrite", "--no-record").succeeded()


def test_tensors_that_are_there(tiny: Path, cli: Any, out: Path) -> None:
    dump = out / "d.safetensors"
    dump.write_bytes(b"mine")
    line = ("--model-path", tiny, *SMALL, "--output", out / "o.mp4", "--dump-tensors", dump)
    cli("run", *line, "--no-overwrite").failed(2, "d.safetensors' already exists")
    assert dump.read_bytes() == b"mine"


def test_jobs_that_are_done_are_no_obstacle(tiny: Path, cli: Any, out: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na cat\n", encoding="utf-8")
    line = (
        "run",
        "--model-path",
        tiny,
        *SMALL[2:],
        "--prompt-file",
        prompts,
        "--output",
        out,
        "--no-overwrite",
    )
    cli(*line).succeeded()
    cli(*line).succeeded()
    prompts.write_text("a fox\na dog\n", encoding="utf-8")
    cli(*line).failed(1, "1 of 2 jobs failed", "line 2", "already exists")
    assert json.loads((out / "00002.json").read_text(encoding="utf-8"))["request"]["prompt"] == "a cat"


@pytest.mark.parametrize("flat", [True, False])
def test_a_plan_names_the_key_and_the_file_of_the_user(tiny: Path, cli: Any, out: Path, flat: bool) -> None:
    path = str(tiny / "Wan2.1_VAE.pth")
    data = {"vae_pth": path} if flat else {"components": {"vae": {"path": path}}}
    (out / "mine.json").write_text(json.dumps(data), encoding="utf-8")
    said = cli("plan", out / "mine.json", "--model-path", tiny, *SMALL).unfolded
    key = "vae_pth" if flat else "components.vae.path"
    assert f"(by {key} in {out}/mine.json)" in said
    said = cli("plan", "--model-path", tiny, *SMALL, "--set", f"components.vae.path={path}").unfolded
    assert "(by --set components.vae.path)" in said


def test_plans_fit(tiny: Path, cli: Any, out: Path) -> None:
    flat = {"self_attn_1_type": "flash_attn3", "text_len": 512, "rope_type": "torch", "t5_cpu_offload": True}
    (out / "flat.json").write_text(json.dumps(flat), encoding="utf-8")
    done = cli("plan", out / "flat.json", "--model-path", tiny, *SMALL, "--prompt", "色调艳丽" * 40)
    done.succeeded()
    wide = [line for line in done.out.splitlines() if width(line) > 100]
    assert all(len(line.split()) == 1 for line in wide), wide  # a path that is longer by itself
    assert "\nnot " not in done.out, "a model was found: what others said does not matter"
    assert "warning" not in done.out, "facts are notes"
    assert done.out.count("\nnote: ") >= 2


def test_folding() -> None:
    assert folded("a b", columns=3) == "a b"
    assert folded("  aa bb cc", columns=7, indent=2) == "  aa bb\n    cc"
    assert folded("  name: " + "x" * 20 + " y", columns=12) == "  name:\n      " + "x" * 20 + "\n      y"
    assert width("a色e\u0301") == 4
    assert cut("色调艳丽，过曝", 9) == "色调艳..."
    assert cut("abc", 3) == "abc"
