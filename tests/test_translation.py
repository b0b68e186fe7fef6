"""The Chinese README follows the English one: the same blocks, tables, headings, code and links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE = "README.md", "README.zh.md"
_BLOCK = re.compile(r"(?ms)^(?:<!-- [^\n]+ -->\n)?```\w*\n.*?^```$")


def text(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", text(page))


def links(page: str) -> Counter[str]:
    """Count the targets of links and images, but the one to the other language."""
    targets = Counter(re.findall(r"\]\(([^)]+)\)", prose(page)))
    del targets[ENGLISH], targets[CHINESE]
    return targets


def rows(page: str) -> list[list[list[str]]]:
    """The code and the links of each cell of each row of a table."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|")]
    return [
        [re.findall(r"`[^`]+`|\]\([^)]+\)", cell) for cell in line.strip("|").split("|")] for line in lines
    ]


def test_blocks_are_the_same() -> None:
    assert len(_BLOCK.findall(text(ENGLISH))) > 5
    assert _BLOCK.findall(text(CHINESE)) == _BLOCK.findall(text(ENGLISH))


def test_code_and_links_are_the_same() -> None:
    code = [Counter(re.findall(r"`[^`]+`", prose(page))) for page in (CHINESE, ENGLISH)]
    assert code[0] == code[1]
    assert links(CHINESE) == links(ENGLISH)


def test_tables_and_headings_are_the_same() -> None:
    assert rows(CHINESE) == rows(ENGLISH)
    levels = [re.findall(r"(?m)^#+(?= )", prose(page)) for page in (CHINESE, ENGLISH)]
    assert levels[0] == levels[1]
    bullets = [len(re.findall(r"(?m)^\* ", prose(page))) for page in (CHINESE, ENGLISH)]
    assert bullets[0] == bullets[1]


@pytest.mark.parametrize(("page", "other"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH)])
def test_the_pages_link_to_each_other(page: str, other: str) -> None:
    assert re.search(rf"(?m)^.*\]\({re.escape(other)}\)", text(page).split("## ")[0])


def test_it_is_a_translation() -> None:
    """Every paragraph of prose is Chinese."""
    for paragraph in prose(CHINESE).split("\n\n"):
        words = re.sub(r"`[^`]+`|\]\([^)]+\)|<!--.*?-->", "", paragraph)
        if len(re.findall(r"[A-Za-z]{3,}", words)) > 3:
            assert re.search(r"[\u4e00-\u9fff]", words), paragraph
