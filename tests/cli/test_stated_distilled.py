"""An explicit setting outweighs what a name suggests: distilled or not, for any file name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

Cli = Callable[..., Any]
LIST = {"denoising_step_list": [1000, 750, 500, 250]}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")
    folder = tmp_path_factory.mktemp("experts") / "plain"
    writer.write_tiny_a14b(folder, 0)
    return Path(folder)


def planned(cli: Cli, *line: object) -> tuple[str, int, list[float], list[str]]:
    done = cli("plan", *line, "--task", "t2v", "--json")
    done.succeeded()
    plan = json.loads(done.out)["plan"]
    request = plan["request"]
    return request["scheduler"], request["steps"], request["guide_scale"], [*plan["notes"], *plan["warnings"]]


def named(model: Path, name: str) -> Path:
    """The model with its network in one file called ``name``."""
    stored = pytest.importorskip("safetensors.torch")
    tensors = {}
    for file in model.glob("diffusion_pytorch_model*"):
        tensors |= stored.load_file(file) if file.suffix == ".safetensors" else {}
        file.unlink()
    stored.save_file(tensors, model / name)
    return model


def test_a_model_class_makes_a_run_distilled(cli: Cli, tiny: Path, experts: Path) -> None:
    assert planned(cli, "--model-path", tiny)[0] == "unipc"
    for folder, name in ((tiny, "wan2.1_distill"), (experts, "wan2.2_moe_distill")):
        scheduler, steps, scale, notes = planned(cli, "--model-path", folder, "--model_cls", name)
        assert (scheduler, steps, scale) == ("distill", 4, [1.0])
        assert any("is distilled, as requested" in note for note in notes)
        assert planned(cli, "--model-path", folder, "--model", name)[0] == "distill"


def test_a_key_makes_a_run_distilled(cli: Cli, model: Path, tmp_path: Path) -> None:
    file = named(Path(shutil.copytree(model, tmp_path / "other")), "my.safetensors") / "my.safetensors"
    line = ("--model-path", model, "--model", "wan2.1", "--set", f"dit_distill_ckpt={file}")
    assert planned(cli, *line)[:2] == ("distill", 4)
    assert planned(cli, "--model-path", model, "--set", "components.dit.distilled=true")[0] == "distill"


@pytest.mark.parametrize(
    "name", ["my.safetensors", "network-v2.safetensors", "wan_lightx2v_4step.safetensors"]
)
def test_the_name_of_the_file_does_not_matter_then(cli: Cli, model: Path, name: str) -> None:
    folder = named(model, name)
    assert planned(cli, "--model-path", folder, "--model_cls", "wan2.1_distill")[:2] == ("distill", 4)


def test_a_file_that_is_named_is_what_is_stated_of_it(cli: Cli, model: Path) -> None:
    folder = named(model, "wan_lightx2v_4step.safetensors")
    line = ("--model-path", folder, "--model", "wan2.1", "--set", "components.dit.distilled=false")
    cli("plan", *line).failed(2, "is not distilled; found:")  # nobody said that this one is meant
    file = ("--set", f"components.dit.path={folder / 'wan_lightx2v_4step.safetensors'}")
    assert planned(cli, *line, *file)[0] == "unipc"


@pytest.mark.parametrize(
    ("cls", "scheduler", "steps"), [("wan2.1", "unipc", 40), ("wan2.1_distill", "distill", 4)]
)
def test_the_class_decides_what_a_list_of_steps_means(
    cli: Cli, tiny: Path, out: Path, cls: str, scheduler: str, steps: int
) -> None:
    file = out / "both.json"
    for where in ("file", "option"):
        file.write_text(
            json.dumps({**LIST, "infer_steps": 40} | ({"model_cls": cls} if where == "file" else {}))
        )
        line = (file, "--model-path", tiny, *(() if where == "file" else ("--model_cls", cls)))
        found = planned(cli, *line)
        assert found[:2] == (scheduler, steps)
        key = "denoising_step_list" if scheduler == "unipc" else "infer_steps"
        assert any(text.startswith(key) and "no effect" in text for text in found[3])
        done = cli("config", "check", file)
        done.succeeded()


def test_without_a_class_the_list_counts(cli: Cli, tiny: Path, out: Path) -> None:
    (out / "c.json").write_text(json.dumps({**LIST, "infer_steps": 40}))
    assert planned(cli, out / "c.json", "--model-path", tiny)[:2] == ("distill", 4)
    # what the command line says of the steps of a file's list is a contradiction, not a habit
    cli("plan", out / "c.json", "--model-path", tiny, "--set", "infer_steps=8").failed(
        2, "fixed number of 4 steps, but 8"
    )


@pytest.mark.parametrize(
    "data",
    [{"scheduler": {"use": "distill", "options": {"distill": {"denoising_steps": [1000, 5]}}}, "infer_steps": 9},
     {"model_cls": "wan2.1_distill", "infer_steps": 40},
     {"components": {"dit": {"distilled": True}}, "infer_steps": 9}],
)  # fmt: skip
def test_check_and_plan_say_the_same_of_steps(cli: Cli, tiny: Path, out: Path, data: dict[str, Any]) -> None:
    (out / "c.json").write_text(json.dumps(data))
    cli("config", "check", out / "c.json").failed(2, "has a fixed number of ", "steps, but")
    cli("plan", out / "c.json", "--model-path", tiny, "--model", "wan2.1_distill").failed(
        2, "has a fixed number of ", "steps, but"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [("wan2.1_causvid", "block-wise attention (CausVid)"), ("wan2.2_moe_vace", "VACE with two experts"),
     ("wan2.1_mean_flow_distill", "mean-flow"), ("wan2.2_s2v", "audio-driven")],
)  # fmt: skip
def test_a_class_that_nothing_runs_is_told_what_it_is(cli: Cli, tiny: Path, name: str, words: str) -> None:
    cli("plan", "--model-path", tiny, "--model_cls", name).failed(2, words, "is not supported: it is")


def test_a_gguf_that_is_not_there(cli: Cli, tiny: Path) -> None:
    line = (
        "plan",
        "--model-path",
        tiny,
        "--set",
        "dit_quantized=true",
        "--set",
        "dit_quant_scheme=gguf-Q4_K_S",
    )
    cli(*line).failed(2, "is gguf-q4_k; found:")
    cli("plan", "--model-path", tiny, "--set", "components.dit.precision=gguff").failed(
        2, "unknown precision"
    )
