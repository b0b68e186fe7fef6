"""What a file holds against what the model needs, and the fingerprint of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightx2v_core.api import Header, RunError, TensorInfo
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header
from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.checkpoint.fingerprint import fingerprint
from lightx2v_core.checkpoint.verify import problems, unused, wrong_formats


def header(**tensors: tuple[tuple[int, ...], str]) -> Header:
    return Header(
        tensors={
            name: TensorInfo(name=name, shape=shape, dtype=dtype, file=Path("w.safetensors"))
            for name, (shape, dtype) in tensors.items()
        }
    )


def test_nothing_wrong() -> None:
    stored = header(a=((2, 3), "bfloat16"), b=((), "float32"))
    assert problems("dit", stored, {"a": (2, 3), "b": ()}, "config.json") == []
    assert wrong_formats("dit", stored, stored) == []
    assert unused(stored, {"a": (2, 3)}) == ["b"]


def test_each_problem_is_one_sentence_with_a_few_examples() -> None:
    stored = header(a=((2, 3), "float32"), q=((1,), "int8"))
    expected = {"a": (3, 2), "q": (1,), **{f"lost{i}": (1,) for i in range(9)}}
    missing, wrong = problems("dit", stored, expected, "config.json")
    (quantized,) = wrong_formats("dit", stored, stored)
    assert "9 of 11 tensors are missing: lost0, lost1, lost2, lost3, lost4 and 4 more" in missing
    assert "a is [2, 3], config.json needs [3, 2]" in wrong
    assert quantized == "dit: w.safetensors: q is int8 but has no scale, so its values cannot be restored"


def test_fill_casts_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = {"0.weight": torch.randn(3, 2).bfloat16(), "0.bias": torch.randn(3).bfloat16()}
    save_file(weights, path)
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 3))
    seen: list[tuple[int, str]] = []
    source = SafetensorsSource(read_header(path))
    count = SourceWeights(module, source, lambda size, name: seen.append((size, name))).fill("", "cpu")
    assert count == 18
    assert sorted(seen) == [(6, "0.bias"), (12, "0.weight")]
    assert torch.equal(module[0].weight, weights["0.weight"].float())
    assert not module[0].weight.requires_grad


def test_memory_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    class Starved:
        def info(self, name: str) -> TensorInfo:
            return TensorInfo(name=name, shape=(1 << 50,), dtype="float32", file=tmp_path)

        def read(self, name: str, device: str) -> torch.Tensor:
            return torch.empty(1 << 50)

    with torch.device("meta"):
        module = nn.Linear(2, 3)
    with pytest.raises(RunError, match="out of memory on cpu while loading weight"):
        SourceWeights(module, Starved(), lambda size, name: None).fill("", "cpu")  # type: ignore[arg-type]


def test_a_fingerprint_sees_content_name_and_size(tmp_path: Path) -> None:
    small, large = tmp_path / "a", tmp_path / "b"
    small.write_bytes(b"x" * 1000)
    large.write_bytes(bytes(range(256)) * 20_000)
    first = fingerprint([small, large])
    assert first.startswith("sampled-sha256:")
    assert fingerprint([large, small]) == first
    small.write_bytes(b"x" * 999 + b"y")
    assert fingerprint([small, large]) != first
    small.write_bytes(b"x" * 1000)
    with large.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    assert fingerprint([small, large]) != first


def test_a_fingerprint_of_a_file_that_went_away_costs_nobody_a_result(tmp_path: Path) -> None:
    assert fingerprint([tmp_path / "gone"]) == "unreadable: gone"
