"""The page that says where things are added names few files, and those exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = {
    cells[0]: re.findall(r"`([\w./-]+\.py)`", cells[1])
    for line in (REPOSITORY / "docs" / "where-to-add.md").read_text(encoding="utf-8").splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 3
}
WHAT = ("A model", "A weight format", "A CLI option", "A step wrapper", "An offload granularity", "A device")


@pytest.mark.parametrize("what", WHAT)
def test_a_row_names_at_most_four_files_that_exist(what: str) -> None:
    files = ROWS[what]
    assert 1 <= len(files) <= 4
    assert [file for file in files if not (REPOSITORY / file).is_file()] == []


def test_every_row_is_tested() -> None:
    assert set(ROWS) - {"What", "---"} == set(WHAT)


#: files of other programs
FOREIGN = frozenset({"generate.py"})


def test_the_architecture_names_modules_that_exist() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+\.py)`", text)) - FOREIGN
    folders = ("lightx2v_core", "plugins", "examples", "tests", "tools", "docs")
    files = [file.as_posix() for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    assert sorted(name for name in named if not any(file.endswith(f"/{name}") for file in files)) == []
