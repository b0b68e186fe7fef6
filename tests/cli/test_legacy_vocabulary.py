"""Files and scripts of LightX2V, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

Cli = Callable[..., Any]
FLAT = {
    "infer_steps": 2, "target_height": 32, "target_width": 32, "target_video_length": 5, "sample_shift": 5,
    "sample_guide_scale": 5, "enable_cfg": True, "self_attn_1_type": "flash_attn3", "rope_type": "torch",
    "feature_caching": "NoCaching", "cpu_offload": False, "text_len": 512, "prompt": "a red fox",
}  # fmt: skip


def write(out: Path, **changes: object) -> Path:
    path = out / "flat.json"
    path.write_text("// of the original\n" + json.dumps({**FLAT, **changes}, indent=1))
    return path


def test_check_reports_ignored_keys(cli: Cli, out: Path) -> None:
    done = cli("config", "check", write(out))
    assert done.status == 0
    assert done.out == f"{out}/flat.json is valid\n"
    for words in ("rope_type", "text_len", "'flash_attn3' is used if it is installed"):
        assert words in done.err
    cli("config", "check", write(out, feature_caching="Tea")).failed(2, "line 12, column 2: feature_caching")
    cli("config", "check", write(out, boundary=0.9, use_tae=True, refert_num=1)).failed(2, "has no option")


def test_show_prints_our_vocabulary_with_the_keys_of_the_file(cli: Cli, out: Path) -> None:
    done = cli("config", "show", write(out), "--set", "infer_steps=7")
    assert done.status == 0
    assert '"steps": 7,  // --set infer_steps' in done.out
    assert f'"shift": 5.0,  // sample_shift in {out}/flat.json' in done.out
    assert "note: self_attn_1_type" in done.err
    shown = out / "shown.json"
    shown.write_text(done.out)
    again = cli("config", "show", shown, "--json")
    assert json.loads(again.out)["sampling"]["steps"] == 7
    assert again.err == ""


def test_a_run_with_a_flat_file(cli: Cli, tiny: Path, out: Path) -> None:
    done = cli("run", write(out), "--model-path", tiny, "--output", out / "o.mp4", "--set", "seed=3")
    done.succeeded()
    assert "note: rope_type" in done.err
    record = json.loads((out / "o.json").read_text())
    assert record["request"]["seed"] == 3
    assert record["request"]["steps"] == 2
    assert any("flash_attn3" in text for text in record["notes"])


def test_a_plan_says_where_values_came_from(cli: Cli, tiny: Path, out: Path) -> None:
    done = cli(
        "plan", write(out, model_cls="wan2.1_distill", denoising_step_list=[1000, 500]), "--model-path", tiny
    )
    done.succeeded()
    assert f"steps 2 (infer_steps in {out}/flat.json)" in done.unfolded
    # not installed, or installed and of no use on a CPU
    assert "not flash-attn3: " in done.out or "not flash-attn/flash-attn3: " in done.out
    assert (
        f"note: wan2.1_distill (model_cls in {out}/flat.json) is wan2.1 with a distilled network"
        in done.unfolded
    )
    assert "note: rope_type" in done.out


def test_an_option_that_the_model_does_not_have(cli: Cli, tiny: Path, out: Path) -> None:
    line = ("plan", write(out, boundary=0.9), "--model-path", tiny)
    cli(*line).failed(2, "model wan2.1 has no option 'boundary'", f"boundary in {out}/flat.json")


def test_a_tokenizer_from_elsewhere(cli: Cli, model: Path, out: Path) -> None:
    (model / "google" / "umt5-xxl").rename(out / "words")
    line = ("plan", write(out), "--model-path", model)
    cli(*line).failed(2, "tokenizer is missing")
    cli(*line, "--set", "t5_tokenizer_path=words").succeeded()
    cli(*line, "--set", "components.text_encoder.assets.tokenizer=words/tokenizer.json").succeeded()
    cli(*line, "--set", "t5_tokenizer_path=wrds").failed(
        2, "text_encoder.assets.tokenizer 'wrds' does not exist"
    )
    cli(*line, "--set", "components.text_encoder.assets.words=words").failed(
        2, "this component has tokenizer"
    )
    cli(
        "run",
        write(out),
        "--model-path",
        model,
        "--output",
        out / "o.mp4",
        "--set",
        "t5_tokenizer_path=words",
    )
    assert (out / "o.mp4").exists()


def test_components_that_the_model_does_not_have(cli: Cli, tiny: Path, out: Path) -> None:
    """The files of LightX2V configure the image encoder for every model."""
    line = ("plan", "--model-path", tiny)
    done = cli(*line, write(out, clip_cpu_offload=True, clip_quantized=False))
    done.succeeded()
    assert f"note: clip_cpu_offload in {out}/flat.json: " not in done.out  # this model has one
    cli(*line, write(out), "--set", "components.imge_encoder.path=x").failed(
        2, "did you mean 'image_encoder'?"
    )


def test_what_a_model_says_of_itself_never_changes_the_request(cli: Cli, model: Path, out: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "infer_steps": 99, "sampling": {"steps": 98}}))
    done = cli("plan", write(out), "--model-path", model, "--json")
    assert json.loads(done.out)["plan"]["request"]["steps"] == 2
