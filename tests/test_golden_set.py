"""The compact golden set, which a clone without the full one has: its size, and its description of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightx2v_core.builtin.safetensors_file import read_header

CASES = sorted(file.parent for file in (Path(__file__).parent / "golden").glob("*/case.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_holds_what_it_lists(case: Path) -> None:
    said = json.loads((case / "case.json").read_text(encoding="utf-8"))
    for file in case.glob("*puts.safetensors"):
        assert set(read_header(file)) == set(said[file.stem]), file.stem


def test_no_file_is_large_and_all_are_a_few_megabytes() -> None:
    sizes = {file: file.stat().st_size for case in CASES for file in case.rglob("*") if file.is_file()}
    assert max(sizes.values()) < 3_000_000
    assert sum(sizes.values()) < 27_000_000
