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


PAGES = [REPOSITORY / "docs" / "architecture.md", *sorted((REPOSITORY / "docs" / "adr").glob("0*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_architecture_pages_name_modules_that_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w./-]+\.py)`", page.read_text(encoding="utf-8"))) - FOREIGN
    folders = ("lightx2v_core", "plugins", "examples", "tests", "tools", "docs")
    files = [file.as_posix() for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    assert sorted(name for name in named if not any(file.endswith(f"/{name}") for file in files)) == []


def test_decision_records_are_numbered_and_linked() -> None:
    records = PAGES[1:]
    assert [int(record.stem[:3]) for record in records] == list(range(1, len(records) + 1))
    architecture = PAGES[0].read_text(encoding="utf-8")
    for number, record in enumerate(records, 1):
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")
        assert f"(adr/{record.name})" in architecture
