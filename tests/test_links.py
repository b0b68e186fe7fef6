"""Relative links in Markdown pages lead to files that exist, and to headings that those have."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "examples", "plugins", "tools", "benchmarks", ".github", "tests")
PAGES = sorted(
    page
    for folder in (REPOSITORY, *(REPOSITORY / name for name in FOLDERS))
    for page in (folder.glob("*.md") if folder == REPOSITORY else folder.rglob("*.md"))
    if not {"_build", ".tox", ".venv", "node_modules"} & set(page.parts)
)
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"")


def without_code(text: str) -> str:
    """Blank out fenced blocks and inline code, which may look like links."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that code hosts give the headings of a page."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = "".join(
            "-" if letter == " " else letter
            for letter in plain
            if letter in " -_" or unicodedata.category(letter)[0] in "LN"
        )
        unique, number = slug, 1
        while unique in found:
            unique, number = f"{slug}-{number}", number + 1
        found.add(unique)
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for groups in _LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        target = groups[0] or groups[1]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.suffix == ".rst" and file.parent.name == "api":  # written when the site is built
            continue
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_there_are_pages() -> None:
    assert len(PAGES) > 40
