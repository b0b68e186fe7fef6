"""Results that are not finite end the run: the message names the component, and nothing is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightx2v_core import load
from lightx2v_core.errors import RunError

SMALL = ("--size", "32x32", "--frames", "5", "--steps", "2", "--device", "cpu", "--dtype", "float32")
DIT, T5, VAE = (
    "diffusion_pytorch_model*.safetensors",
    "models_t5_umt5-xxl-enc-bf16.pth",
    "Wan2.1_VAE.pth",
)

NAN, INF = float("nan"), float("inf")


def poisoned(model: Path, pattern: str, ending: str, value: float) -> None:
    """Write ``value`` into the first tensor of a file whose name has this ending."""
    for file in sorted(model.glob(pattern)):
        pth = file.suffix == ".pth"
        tensors = torch.load(file, weights_only=True) if pth else load_file(file)
        for name in sorted(tensors):
            if name.endswith(ending):
                tensors[name].view(-1)[0] = value
                if pth:
                    torch.save(tensors, file)
                else:
                    save_file(tensors, file)
                return
    raise AssertionError((pattern, ending))


@pytest.mark.parametrize(
    ("pattern", "ending", "value", "output", "words"),
    [
        (DIT, "blocks.0.ffn.0.weight", NAN, "o.mp4", ("step 1 of 2 (dit)", "files of dit")),
        (DIT, "head.head.bias", INF, "frames/", ("step 1 of 2 (dit)",)),
        (T5, "blocks.0.norm1.weight", NAN, "o.mp4", ("encoding the prompt produced", "text_encoder")),
        (VAE, "decoder.conv1.bias", NAN, "frames/", ("frames that are not finite", "vae")),
    ],
)
def test_a_weight_that_is_no_number(
    model: Path,
    cli: Any,
    out: Path,
    pattern: str,
    ending: str,
    value: float,
    output: str,
    words: tuple[str, ...],
) -> None:
    poisoned(model, pattern, ending, value)
    dump = out / "d.safetensors"
    done = cli(
        "run",
        "--model-path",
        model,
        "--prompt",
        "x",
        *SMALL,
        "--output",
        f"{out}/{output}",
        "--dump-tensors",
        dump,
    )
    done.failed(1, "not finite", "float32", "nothing was saved", *words)
    assert list(out.iterdir()) == []


def test_the_job_fails_and_the_others_go_on(model: Path, cli: Any, out: Path, tmp_path: Path) -> None:
    """A prompt alone can cause it: here the row of one token is not finite."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\nc\n", encoding="utf-8")
    from lightx2v_wan21.tokenizer import Tokenizer

    tokenizer = next(model.rglob("tokenizer.json"))
    rows = [int(Tokenizer(tokenizer.parent).encode([text], 8)[0][0, 1]) for text in "abc"]
    assert len(set(rows)) == 3, rows
    file = model / T5
    tensors = torch.load(file, weights_only=True)
    tensors["token_embedding.weight"][rows[1]] = NAN
    torch.save(tensors, file)
    done = cli("run", "--model-path", model, "--prompt-file", prompts, *SMALL, "--output", out, "--seed", 1)
    done.failed(1, "1 of 3 jobs failed", "line 2", "not finite")
    assert sorted(path.name for path in out.glob("*.mp4")) == ["00001.mp4", "00003.mp4"]


def test_python_is_told_too(model: Path) -> None:
    poisoned(model, VAE, "decoder.conv1.bias", NAN)
    with load(model, device="cpu") as pipeline:
        with pytest.raises(RunError, match="not finite"):
            pipeline.generate(prompt="x", size=(32, 32), frames=5, steps=2)
        with pytest.raises(RunError, match="not finite"):
            pipeline.decode(torch.zeros(16, 2, 4, 4))


def test_a_number_too_large_is_one_event(model: Path, cli: Callable[..., Any], out: Path) -> None:
    """A program that reads the events learns it as people do."""
    poisoned(model, DIT, "head.head.bias", INF)
    done = cli("run", "--model-path", model, "--prompt", "x", *SMALL, "--output", out / "o.mp4", "--json")
    last = json.loads(done.out.splitlines()[-1])
    assert (last["event"], last["exit_status"]) == ("error", 1)
    assert "not finite" in last["message"]
