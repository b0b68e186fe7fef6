"""A LoRA made of two networks, and LoRA files merged into a file: there and back again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.builtin.lora_merge import Merge  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.discovery.registry import Registry  # noqa: E402
from lightx2v_core.lora.matching import match  # noqa: E402
from lightx2v_core.plan.recognize import read_header  # noqa: E402
from lightx2v_core.runtime.build import open_source  # noqa: E402
from lightx2v_core.spec.context import BuildContext  # noqa: E402
from lightx2v_core.spec.protocols import Adapter  # noqa: E402


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(load_plugins())


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lightx2v_core", "extract-lora", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)


def network(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "blocks.0.q.weight": (24, 16), "blocks.0.q.bias": (24,), "blocks.0.modulation": (1, 6, 16),
        "blocks.0.norm.weight": (16,), "patch.weight": (16, 4, 1, 2, 2), "positions": (1, 5, 16),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def merged(base: Path, lora: Path, registry: Registry, strength: float = 1.0) -> dict[str, Any]:
    ctx = BuildContext()
    source = open_source(read_header(registry, base), registry, ctx)
    header = read_header(registry, lora)
    found = match(header, {name: source.info(name).shape for name in source.names()})
    assert found.whole
    adapter = Adapter(source=open_source(header, registry, ctx), changes=found.changes, strength=strength)
    after = Merge().merged(source, [adapter])
    return {name: after.read(name) for name in after.names()}


def test_what_was_extracted_brings_the_network_back(tmp_path: Path, registry: Registry) -> None:
    base, tuned = network(1), network(2)
    generator = torch.Generator().manual_seed(3)
    low = torch.randn(24, 3, generator=generator) @ torch.randn(3, 16, generator=generator)
    tuned["blocks.0.q.weight"] = base["blocks.0.q.weight"] + low
    tuned["blocks.0.norm.weight"] = base["blocks.0.norm.weight"]
    save_file(base, tmp_path / "base.safetensors")
    save_file(tuned, tmp_path / "tuned.safetensors")
    lora = tmp_path / "made" / "lora.safetensors"
    done = command(
        tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", "--output", lora,
        "--rank", 3, "--min-elements", 100, "--dtype", "float32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "1 pairs of rank 3 or less, 4 full differences, 1 equal tensors; the rank loses 0.00 %" in done.stdout
    )
    stored = load_file(lora)
    assert set(stored) == {
        "diffusion_model.blocks.0.q.lora_up.weight", "diffusion_model.blocks.0.q.lora_down.weight",
        "diffusion_model.blocks.0.q.diff_b", "diffusion_model.blocks.0.diff_m", "diffusion_model.patch.diff",
        "diffusion_model.positions.diff",
    }  # fmt: skip
    got = merged(tmp_path / "base.safetensors", lora, registry)
    for name, tensor in tuned.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-5, rtol=1e-5)
    back = merged(tmp_path / "tuned.safetensors", lora, registry, strength=-1.0)
    for name, tensor in base.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-5, rtol=1e-5)


def test_a_smaller_rank_is_the_nearest_matrix(tmp_path: Path, registry: Registry) -> None:
    base, tuned = network(1), network(2)
    save_file(base, tmp_path / "base.safetensors")
    save_file(tuned, tmp_path / "tuned.safetensors")
    errors = []
    for rank in (1, 4, 8):
        lora = tmp_path / f"{rank}.safetensors"
        done = command(
            tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", "--output", lora, "--rank", rank,
            "--min-elements", 100, "--dtype", "float32",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        name = "blocks.0.q.weight"
        left = (merged(tmp_path / "base.safetensors", lora, registry)[name] - tuned[name]).norm()
        values = torch.linalg.svdvals(tuned[name] - base[name])
        torch.testing.assert_close(left, values[rank:].norm(), atol=1e-4, rtol=1e-4)
        errors.append(float(left))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("same", "does not differ from"),
        ("other", "have no common tensor"),
        ("missing", "does not exist"),
        ("quantized", "has quantized weights"),
        ("nan", "values that are not finite"),
        ("suffix", "must end in .safetensors"),
    ],
)
def test_what_cannot_be_extracted(change: str, words: str, tmp_path: Path) -> None:
    base, tuned = network(1), network(2)
    output = tmp_path / ("lora.bin" if change == "suffix" else "lora.safetensors")
    if change == "same":
        tuned = base
    elif change == "other":
        tuned = {"somewhere.else": torch.zeros(2)}
    elif change == "quantized":
        tuned["blocks.0.q.weight"] = tuned["blocks.0.q.weight"].to(torch.float8_e4m3fn)
    elif change == "nan":
        tuned["blocks.0.q.bias"][0] = float("nan")
    save_file(base, tmp_path / "base.safetensors")
    if change != "missing":
        save_file(tuned, tmp_path / "tuned.safetensors")
    done = command(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", "--output", output)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    save_file(network(1), tmp_path / "base.safetensors")
    save_file(network(2), tmp_path / "tuned.safetensors")
    (tmp_path / "file").write_text("x")
    done = command(
        tmp_path / "base.safetensors",
        tmp_path / "tuned.safetensors",
        "--output",
        tmp_path / "file" / "l.safetensors",
    )
    assert done.returncode == 1
    assert "could not be written" in done.stderr


def test_tensors_that_only_one_has_are_named(tmp_path: Path) -> None:
    base, tuned = network(1), network(2)
    del tuned["positions"]
    save_file(base, tmp_path / "base.safetensors")
    save_file(tuned, tmp_path / "tuned.safetensors")
    done = command(
        tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", "--output", tmp_path / "l.safetensors"
    )
    assert done.returncode == 0
    assert "warning: positions is missing in one network or has another shape" in done.stderr


def test_model_folders_in_other_layouts_and_a_run_with_the_result(tmp_path: Path, registry: Registry) -> None:
    """The LoRA of a tuned model makes the base compute what the tuned one computes."""
    writer = pytest.importorskip("lightx2v_wan21.tiny")
    from lightx2v_core import load

    for name, seed in (("base", 0), ("tuned", 1)):
        writer.write_tiny(tmp_path / name, seed)
    done = command(
        tmp_path / "base", tmp_path / "tuned", "--output", tmp_path / "l.safetensors", "--dtype", "float32"
    )
    assert done.returncode == 0, done.stderr
    networks = [
        load(tmp_path / "base", device="cpu", loras=[str(tmp_path / "l.safetensors")], strict_lora=True),
        load(tmp_path / "tuned", device="cpu"),
    ]
    first, second = (item.module("dit").state_dict() for item in networks)
    for name, tensor in second.items():
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=1e-5)
