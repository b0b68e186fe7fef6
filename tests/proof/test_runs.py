"""Runs with kernels that are wrong: refused before a weight is read, or skipped; plans prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.testing import environment

pytest.importorskip("lightx2v_wan21")

SMALL = ("--prompt", "a fox", "--size", "32x32", "--frames", "1", "--steps", "1", "--guide-scale", "1",
         "--device", "cpu")  # fmt: skip
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def core(faulty: Path, mark: Path, tmp_path: Path) -> Run:
    """``lightx2v-core`` as a process of its own, among the faulty kernels."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lightx2v_core", *map(str, arguments)], cwd=tmp_path,
            env=environment(faulty, FAULTY_MARK=str(mark)), capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def here(faulty: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The faulty kernels in this process."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(faulty))
    monkeypatch.setenv("FAULTY_MARK", str(mark))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("faulty_"):
            del sys.modules[name]


def unread(folder: Path) -> None:
    """Make the weights of a checkpoint unreadable, and leave their headers."""
    for path in folder.rglob("*.safetensors"):
        size = int.from_bytes(path.read_bytes()[:8], "little") + 8
        data = path.read_bytes()
        path.write_bytes(data[:size] + b"\xff" * (len(data) - size))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--attention", "fast"), ("no usable attention among 'fast'", "faulty/fast: wrong on this machine: ",
                                   "%, tolerance 1%", "alternatives: sound, ", "sdpa")),
        (("--attention", "leaves"), ("its proof failed: SystemExit: this build is for another device", "sdpa")),
        (("--set", 'components.dit.quantizer="fast-int8"'),
         ("no usable quantizer among 'fast-int8'", "int8-channel product in float32", "tolerance 5.0%")),
    ],
    ids=["attention", "raises", "quantizer"],
)  # fmt: skip
def test_what_is_named_and_wrong_is_refused(
    core: Run, tiny: Path, tmp_path: Path, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    done = core(
        "run", "--model-path", tiny, *SMALL, *options, "--output", tmp_path / "out" / "o.png", "--json"
    )
    assert done.returncode == 2, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["error"], "nothing was loaded"
    for part in parts:
        assert part in events[0]["message"], part
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("attention", ["auto", ["fast", "sound"], ["leaves", "fast", "sound"]])
def test_what_is_left_to_the_machine_is_chosen_among_the_right(
    core: Run, tiny: Path, tmp_path: Path, attention: Any
) -> None:
    output = tmp_path / "o.png"
    done = core(
        "run", "--model-path", tiny, *SMALL, "--set", f"attention={json.dumps(attention)}", "--output", output,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (warning,) = [event["message"] for event in events if event["event"] == "warning"]
    assert "wrong on this machine" in warning
    assert "using faulty/sound instead" in warning
    (plan,) = [event["plan"] for event in events if event["event"] == "plan"]
    (said,) = [choice for choice in plan["choices"] if choice["kind"] == "attention"]
    assert said["use"] == "faulty/sound"
    assert "differs from softmax(q k^T * scale) v by" in said["rejected"]["faulty/fast"][0]
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["choices"]["attention"]["use"] == "faulty/sound"


def test_plans_and_lists_prove_nothing(core: Run, tiny: Path, mark: Path) -> None:
    """They say what would be chosen, as they compute nothing."""
    options = ("--model-path", tiny, *SMALL)
    for arguments in (
        ("plan", *options, "--attention", "fast"),
        ("run", *options, "--attention", "fast", "--dry-run"),
        ("plan", *options, "--set", 'components.dit.quantizer="fast-int8"', "--lora-applier", "fast-lora"),
        ("inspect", tiny),
        ("plugins", "list"),
        ("plugins", "--json"),
    ):
        done = core(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert "wrong on this machine" not in done.stdout + done.stderr
    assert not mark.exists()


@pytest.mark.usefixtures("here")
def test_python_refuses_and_passes_over_too(tiny: Path, tmp_path: Path) -> None:
    import shutil

    from lightx2v_core import load
    from lightx2v_core.api import PluginError, Warned
    from lightx2v_core.events import PhaseStarted

    events: list[Any] = []
    broken = Path(shutil.copytree(tiny, tmp_path / "broken"))
    unread(broken)
    for wrong in (
        {"attention": "fast"},
        {"config": {"components": {"dit": {"quantizer": "fast-int8"}}}},
        {"config": {"components": {"dit": {"quantizer": "faulty/fast-int8"}}}},
    ):
        with pytest.raises(PluginError):
            load(broken, on_event=events.append, **wrong)  # type: ignore[arg-type]
    assert not [event for event in events if isinstance(event, PhaseStarted)]

    said = {"components": {"dit": {"quantizer": {"use": ["fast-int8", "sound-int8"]}}}, "attention": "auto"}
    with load(tiny, config=said, on_event=events.append) as pipeline:
        uses = {choice.kind: choice for choice in pipeline.plan.choices}
        assert uses["attention"].use == "faulty/sound"
        assert uses["quantizer"].use == "faulty/sound-int8"
        assert "product in float32" in uses["quantizer"].rejected["faulty/fast-int8"][0]
        # later results report the same
        assert pipeline.resolve(prompt="a fox").plan.choice("attention").use == "faulty/sound"
        assert any(
            "using faulty/sound instead" in text for text in pipeline.resolve(prompt="a fox").plan.warnings
        )
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert [text.partition(" is ")[0] for text in warnings] == [
        "attention faulty/fast",
        "quantizer of dit faulty/fast-int8",
    ]


@pytest.mark.usefixtures("here")
def test_the_default_of_a_quantized_file_is_proved(tiny: Path, tmp_path: Path) -> None:
    """The core's exact quantizer comes first, and stays: the exact one of a stranger would be wrong."""
    from safetensors.torch import load_file, save_file

    from lightx2v_core import load
    from lightx2v_core.api import PluginError, quantize_weight

    tensors: dict[str, Any] = {}
    for path in sorted(tiny.glob("diffusion_pytorch_model*.safetensors")):
        tensors |= load_file(path)
    for name in [name for name in tensors if name.startswith("blocks.1.ffn") and name.endswith("weight")]:
        layer = name.removesuffix(".weight")
        tensors |= {f"{layer}.{key}": x for key, x in quantize_weight(tensors[name], "int8-channel").items()}
    save_file(tensors, tmp_path / "dit.safetensors")
    dit = {"path": str(tmp_path / "dit.safetensors")}
    with load(tiny, config={"components": {"dit": dit}}) as pipeline:
        assert pipeline.plan.choice("quantizer").use == "core/dequant"
    for wrong in ("exact-int8", "fast-int8"):
        with pytest.raises(PluginError, match="wrong on this machine") as caught:
            load(tiny, config={"components": {"dit": {**dit, "quantizer": wrong}}})
        (others,) = [line for line in str(caught.value).splitlines() if "alternatives: " in line]
        assert {"dequant", "int8-torch", "sound-int8"} <= set(others.rpartition(": ")[2].split(", "))
        assert wrong not in others


@pytest.mark.usefixtures("here")
def test_lora_appliers_prove_themselves_when_they_are_chosen(tiny: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from lightx2v_core import load
    from lightx2v_core.api import PluginError

    save_file({"head.head.diff_b": torch.ones(64)}, tmp_path / "lora.safetensors")
    lora = str(tmp_path / "lora.safetensors")
    with pytest.raises(PluginError, match="no usable lora_applier among 'fast-lora'") as caught:
        load(tiny, loras=[lora], lora_applier="fast-lora")
    others = str(caught.value).partition("alternatives: ")[2].split(", ")  # and those of other plugins
    assert [name for name in others if name in ("dynamic", "merge", "fast-lora", "sound-lora")] == [
        "dynamic",
        "merge",
        "sound-lora",
    ]
    with pytest.raises(PluginError, match="wrong on this machine"):
        load(tiny, lora_applier="fast-lora")
    with load(tiny, loras=[lora], config={"lora_applier": ["fast-lora", "sound-lora"]}) as pipeline:
        assert pipeline.plan.choice("lora_applier").use == "faulty/sound-lora"
    with load(tiny) as pipeline:  # the default, when it is first needed
        assert pipeline.set_loras([lora]).choice("lora_applier").use == "core/merge"


def test_jobs_of_a_file_are_told_of_what_is_used(core: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("a fox\na hare\n")
    options = [option for option in SMALL if option not in ("--prompt", "a fox")]
    done = core(
        "run", "--model-path", tiny, *options, "--attention", "auto", "--prompt-file", tmp_path / "jobs.txt",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*.json"))]
    assert [record["choices"]["attention"]["use"] for record in records] == ["faulty/sound"] * 2


@pytest.mark.usefixtures("here")
def test_tests_of_kernels_ask_the_same_proof() -> None:
    from lightx2v_core.testing import wrong_here

    assert "attention in float32" in wrong_here("attention", "faulty/fast")
    assert "differs from softmax(q k^T * scale) v by" in wrong_here("attention", "fast", ("bfloat16",))
    assert wrong_here("attention", "sound", ("float32", "float16")) == ""
    assert wrong_here("quantizer", "faulty/fast-int8").startswith("faulty/fast-int8: wrong on this machine: ")
