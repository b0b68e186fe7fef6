"""Requests that cannot be carried out: status 2, one message that says what to do, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Refused = Callable[..., None]
VAE = "Wan2.1_VAE.pth"


# the request


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "6"], ("frames must be 4k + 1", "5 or 9")),
        (["--frames", "0"], ("frames", "1")),
        (["--frames", "-3"], ("frames",)),
        (["--frames", "five"], ("--frames: expected an integer, got 'five'",)),
        (["--frames", "5.0"], ("--frames: expected an integer",)),
        (["--size", "33x32"], ("width must be divisible by 16", "32 or 48")),
        (["--size", "32x8"], ("height must be divisible by 16", "16")),
        (["--size", "0x32"], ("size",)),
        (["--size", "big"], ("--size: size 'big'", "WIDTHxHEIGHT")),
        (["--size", "832"], ("WIDTHxHEIGHT",)),
        (["--steps", "0"], ("steps", "between 1 and 1000, got 0")),
        (["--steps", "-1"], ("steps",)),
        (["--seed", "-1"], ("seed", "between 0 and 9,223,372,036,854,775,807, got -1")),
        (["--seed", str(2**63)], ("seed",)),
        (["--fps", "0"], ("fps",)),
        (["--fps", "nan"], ("fps",)),
        (["--fps", "inf"], ("fps",)),
        (["--fps", "0.0001"], ("frames per second",)),
        (["--shift", "0"], ("shift",)),
        (["--shift", "-1"], ("shift",)),
        (["--guide-scale", "-1"], ("guide_scale",)),
        (["--guide-scale", "1,2,3"], ("guide_scale",)),
        (["--guide-scale", "x"], ("--guide-scale: expected a number, got 'x'",)),
        (["--guide-scale", ","], ("--guide-scale: expected a number",)),
        (["--dtype", "float8"], ("dtype", "'float8' is not one of")),
        (["--device", "tpu"], ("unknown device 'tpu'", "auto, cpu, cuda")),
        (["--device", "cuda:x"], ("unknown device",)),
        (["--device", "cuda:99"], ("'cuda:99' cannot be used", "--device cpu")),
        (["--attention", "spda"], ("unknown attention 'spda'", "did you mean 'sdpa'?")),
        (["--attention", "sdpa,flash9"], ("unknown attention 'flash9'", "installed: ")),
        (["--scheduler", "unpic"], ("unknown scheduler 'unpic'", "did you mean 'unipc'?")),
        (["--scheduler", "auto"], ("scheduler cannot be 'auto'", "unipc")),
        (["--model", "wan9"], ("unknown model 'wan9'", "installed: ")),
        (["--disable-plugin", "nothing"], ("nothing",)),
        (["--only-plugins", "core"], ("no model plugin is installed",)),
        (["--lora", "a.safetensors"], ("a.safetensors",)),
        (["--image", "a.png"], ("task t2v", "does not accept image", "a prompt only")),
        (["--task", "i2v"], ("supports t2v, not 'i2v'",)),
        (["--task", "t3v"], ("not 't3v'", "did you mean 't2v'?")),
        (["--prompt", "a\udcff"], ("prompt", "not valid text")),
        (["--set", "sampling.step=3"], ("unknown key 'step'", "did you mean 'steps'?")),
        (["--set", "sampling"], ("--set 'sampling': expected dotted.key=value",)),
        (["--set", ".=1"], ("expected dotted.key=value",)),
        (["--set", "quantizer=fp9"], ("quantizer", "fp9")),
        (["--set", "components.dit.offloader=moon"], ("offloader",)),
        (["--set", "components.nothing.path=x"], ("components.nothing", "it has dit, text_encoder, ")),
        (["--set", "components.vae.path=/no/where"], ("components.vae.path '/no/where' does not exist",)),
        (["--set", "offloader=cpu9"], ("unknown offloader 'cpu9'",)),
        (["--set", 'scheduler={"use": "euler", "options": {"euler": {"gird": 1}}}'], ("unknown key 'gird'", "'grid'")),
        (["--set", 'scheduler={"use": "euler", "options": {"unipc": {}}}'], ("does not name",)),
        (["no/such/config.json"], ("configuration file 'no/such/config.json' does not exist",)),
        (["a fox runs"], ("file 'a fox runs' does not exist", "and a prompt with --prompt")),
        (["mini"], ("file 'mini' does not exist", "pass a model with --model-path")),
        (["/"], ("file '/' is a folder", "pass a model with --model-path")),
        (["--model", "wan2.2_moe"], ("no installed model recognizes", "as wan2.1 (wan2.1-t2v-", "omit --model")),
        (["--config_json", "a.json", "b.json"], ("two configuration files",)),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_requests_that_cannot_be(
    tiny: Path, refused: Refused, options: list[str], words: tuple[str, ...]
) -> None:
    refused(tiny, words, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_on_a_machine_without(tiny: Path, refused: Refused) -> None:
    refused(tiny, ("device 'cuda' cannot be used", "use --device cpu or auto"), "--device", "cuda")


def test_the_model_of_another_name_is_not_proposed(tiny: Path, cli: Callable[..., Any]) -> None:
    done = cli("plan", "--model-path", tiny, "--model_cls", "wan2.1_mystery")
    done.failed(2, "unknown model 'wan2.1_mystery', installed: ")
    assert "did you mean" not in done.err
    cli("plan", "--model-path", tiny, "--model", "wan2.3").failed(2, "did you mean 'wan2.1'?")


def test_no_prompt_and_no_model(tiny: Path, cli: Callable[..., Any], out: Path) -> None:
    cli("run", "--model-path", tiny, "--size", "32x32", "--frames", "5").failed(
        2, "no prompt given", "--prompt"
    )
    cli("run", "--prompt", "x").failed(2, "no model folder given", "--model-path")
    assert list(out.iterdir()) == []


def test_a_configuration_that_is_broken(tiny: Path, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for text, words in (
        ('{"sampling": {"steps": 5,, }}', "line 1, column 26"),
        ('{"output": {"crf": 99}}', ("'crf' must be between 0 and 51, got 99", str(path))),
        ('{"prompt": "x", "prompt": "y"}', "duplicate key 'prompt'"),
        ("[]", "expected an object"),
        ('{"promt": "x"}', "did you mean 'prompt'?"),
    ):
        path.write_text(text)
        refused(tiny, words, path)


def test_a_value_may_begin_with_a_dash(tiny: Path, cli: Callable[..., Any]) -> None:
    options = ("--prompt", "-5 degrees", "--negative-prompt", "--", "--frames", "5")
    result = cli("plan", "--model-path", tiny, *options, "--json")
    result.succeeded()
    request = json.loads(result.out)["plan"]["request"]
    assert (request["prompt"], request["negative_prompt"]) == ("-5 degrees", "--")


def test_options_of_click(cli: Callable[..., Any], out: Path) -> None:
    for arguments in (["run", "--nonsense"], ["run", "--steps"], ["runn"], ["run", "a", "b"]):
        result = cli(*arguments)
        assert result.status == 2
        assert "Traceback" not in result.err
        assert "rror: " in result.err
    assert list(out.iterdir()) == []


# the output


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("a.avi", "unknown suffix '.avi'"),
        ("a", "has no suffix"),
        ("a.png", "is a single image, but the request has 5 frames"),
        ("~no_such_user_here/a.mp4", "no such user"),
        ("x" * 400 + ".mp4", "too long"),
    ],
)
def test_outputs_that_cannot_be(tiny: Path, refused: Refused, output: str, words: str) -> None:
    refused(tiny, words, "--output", output)


def test_outputs_in_the_way(tiny: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(tiny, "is not a folder", "--output", tmp_path / "file" / "a.mp4")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000.png").write_text("x")
    refused(tiny, "already contains frames", "--output", tmp_path / "frames")
    (tmp_path / "fox.json").write_text('{"prompt": "mine"}')
    refused(tiny, ("would replace", "--no-record"), tmp_path / "fox.json", "--output", tmp_path / "fox.mp4")
    assert (tmp_path / "fox.json").read_text() == '{"prompt": "mine"}'


def test_dumps_in_the_way(tiny: Path, refused: Refused, tmp_path: Path, out: Path) -> None:
    (tmp_path / "d.safetensors").mkdir()
    refused(tiny, "is a folder; a file is required", "--dump-tensors", tmp_path / "d.safetensors")
    refused(tiny, "is not a folder", "--dump-tensors", tiny / VAE / "x.safetensors")
    for name in ("o.mp4", "o.json", "o"):  # the first two are the video itself and its record
        refused(tiny, "must end in .safetensors", "--dump-tensors", out / name)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
def test_a_place_where_nobody_can_write(tiny: Path, refused: Refused) -> None:
    refused(tiny, "/proc", "--output", "/proc/a.mp4")
    refused(tiny, "/proc", "--dump-tensors", "/proc/a.safetensors")


def test_a_refused_run_in_json_is_an_event(tiny: Path, cli: Callable[..., Any]) -> None:
    result = cli("run", "--model-path", tiny, "--prompt", "x", "--frames", "6", "--json")
    result.failed(2, "frames must be 4k + 1")
    (event,) = [json.loads(line) for line in result.out.splitlines()]
    assert event["event"] == "error"
    assert event["exit_status"] == 2
    assert "frames must be 4k + 1" in event["message"]


def test_plan_refuses_what_run_refuses(tiny: Path, cli: Callable[..., Any]) -> None:
    for options in (["--frames", "6"], ["--attention", "spda"], ["--output", "a.avi"], ["--lora", "x"]):
        run = cli("run", "--model-path", tiny, "--prompt", "x", *options)
        plan = cli("plan", "--model-path", tiny, *options)
        assert (plan.status, plan.err) == (run.status, run.err)


# configurations


def test_config_show_is_a_configuration_with_the_same_result(
    cli: Callable[..., Any], tmp_path: Path, out: Path
) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{"attention": "sdpa", "sampling": {"size": "64x32", "guide_scale": 3,}, "prompt": "ä // \\"q\\""}'
    )
    options = (
        "--steps",
        "7",
        "--ref-image",
        "a,b",
        "--set",
        'scheduler.use="euler"',
        "--set",
        "sampling.seed=5",
    )
    shown = cli("config", "show", path, *options)
    shown.succeeded()
    (tmp_path / "shown.json").write_text(shown.out, encoding="utf-8")
    cli("config", "check", tmp_path / "shown.json").succeeded()
    first = json.loads(cli("config", "show", path, *options, "--json").out)
    again = json.loads(cli("config", "show", tmp_path / "shown.json", "--json").out)
    assert first == again
    assert first["sampling"]["steps"] == 7
    assert f'"size": [64, 32],  // {path}' in shown.out
    assert '"steps": 7,  // --steps' in shown.out
    assert '"seed": 5,  // --set sampling.seed' in shown.out
    assert '"shift": null,  // default' in shown.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"sampling": {"step": 5}}', ("unknown key 'step'", "did you mean 'steps'?")),
        ('{"attention": "spda"}', ("unknown attention 'spda'", "did you mean 'sdpa'?")),
        (
            '{"scheduler": {"use": "euler", "options": {"euler": {"grid": "x"}}}}',
            ("grid", "'x' is not one of"),
        ),
        ('{"a": 1', ("line 1, column 8",)),
        ('{"sampling": 5}', ("$.sampling", "expected an object")),
    ],
)
def test_config_check_refuses(
    cli: Callable[..., Any], tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "c.json").write_text(text)
    cli("config", "check", tmp_path / "c.json").failed(2, *words)


def test_config_check_of_no_file(cli: Callable[..., Any], tmp_path: Path) -> None:
    cli("config", "check", tmp_path / "none.json").failed(2, "does not exist")
    cli("config", "check", tmp_path).failed(2, "cannot be read")
