"""Fixtures: the folder of the golden reference data, and helpers to read checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F


def _repository() -> Path:
    for folder in Path(__file__).resolve().parents:
        if (folder / "constraints.txt").is_file():
            return folder
    return Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """``golden(case)`` is the folder of a case of reference data; the test is skipped without it."""
    repository = _repository()
    places = (repository.parent / "shared" / "golden", repository / "tests" / "golden")

    def find(case: str) -> Path:
        for place in places:
            if (place / case / "case.json").is_file():
                return place / case
        pytest.skip(f"golden case {case!r} is in neither ../shared/golden nor tests/golden")

    return find


@pytest.fixture(scope="session")
def load_checkpoint() -> Callable[[Path], dict[str, Tensor]]:
    """``load_checkpoint(folder)`` merges the safetensors shards of a folder."""

    def load(folder: Path) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(file)
        return tensors

    return load


@pytest.fixture(scope="session")
def read_json() -> Callable[[Path], dict]:
    """``read_json(file)`` is the parsed content."""
    return lambda file: json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def sdpa() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exact attention on ``[B, L, H, D]``."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    return attention


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
