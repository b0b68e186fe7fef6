"""Differences from the request are reported: in the plan, while it runs, and in the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

SMALL = ("--size", "32x32", "--frames", "5", "--steps", "1", "--device", "cpu")
LONG = "a red fox runs through the snow, " * 60


def cut(text: str) -> bool:
    return "tokens, the limit is 512" in text and "are ignored, from" in text


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_prompt_that_is_cut(tiny: Path, cli: Any, out: Path) -> None:
    asked = ("--model-path", tiny, *SMALL, "--prompt", LONG)
    assert cut(cli("plan", *asked).out)
    done = cli("run", *asked, "--output", out / "o.mp4")
    done.succeeded()
    assert done.err.count("warning: the prompt has") == 1
    assert cut(done.err)
    assert any(map(cut, record(out / "o.json")["warnings"]))


def test_of_many_jobs_the_one_that_is_cut_is_told(tiny: Path, cli: Any, out: Path, tmp_path: Path) -> None:
    """Jobs that differ in their prompts alone share a plan, but not the notes about the prompt."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"a fox\n{LONG}\na cat\n{json.dumps({'prompt': LONG, 'seed': 3})}\n", encoding="utf-8")
    done = cli("run", "--model-path", tiny, *SMALL, "--prompt-file", prompts, "--output", out)
    done.succeeded()
    assert done.err.count("warning: the prompt has") == 2
    told = [any(map(cut, record(out / f"0000{line}.json")["warnings"])) for line in (1, 2, 3, 4)]
    assert told == [False, True, False, True]


@pytest.mark.parametrize("guided", [True, False])
def test_a_negative_prompt_counts_where_it_is_used(tiny: Path, cli: Any, guided: bool) -> None:
    scale = "5" if guided else "1"
    said = cli(
        "plan",
        "--model-path",
        tiny,
        *SMALL,
        "--prompt",
        "x",
        "--negative-prompt",
        LONG,
        "--guide-scale",
        scale,
    ).out
    assert ("the negative prompt has" in said) == guided


def test_python_is_told_of_each_request(tiny: Path) -> None:
    from lightx2v_core import load
    from lightx2v_core.events import Event, Warned

    events: list[Event] = []
    with load(tiny, device="cpu", on_event=events.append) as pipeline:
        for prompt in ("a fox", LONG):
            events.clear()
            video = pipeline.generate(prompt=prompt, size=(32, 32), frames=5, steps=1, on_event=events.append)
            told = [event.message for event in events if isinstance(event, Warned)]
            assert [cut(text) for text in told] == ([True] if prompt == LONG else [])
            assert any(map(cut, video.record["warnings"])) == (prompt == LONG)


def test_seeds(tiny: Path, cli: Any, out: Path) -> None:
    for seed in ("-1", "-7"):
        cli("run", "--model-path", tiny, *SMALL, "--prompt", "x", "--seed", seed).failed(
            2, "omit it for the default", "--seed random"
        )
    drawn = set()
    for name in ("a", "b"):
        cli(
            "run",
            "--model-path",
            tiny,
            *SMALL,
            "--prompt",
            "x",
            "--seed",
            "random",
            "--output",
            out / f"{name}.mp4",
        ).succeeded()
        drawn.add(record(out / f"{name}.json")["request"]["seed"])
    assert len(drawn) == 2
    assert all(0 <= seed < 2**32 for seed in drawn)
