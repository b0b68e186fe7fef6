"""The house keeps its shape: the rooms that docs/architecture.md draws, small modules, few loose types, no circle.

``python tools/counts.py`` prints the figures.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CORE = REPOSITORY / "lightx2v_core"
sys.path.insert(0, str(REPOSITORY / "tools"))
import counts  # noqa: E402


def drawn() -> set[str]:
    """The entries of the tree in docs/architecture.md, and the two that every package has."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("    lightx2v_core/ ")[2].partition("    plugins/<name>/")[0]
    return {
        *re.findall(r"^      (\w+)(?:/|\.py)", tree, re.MULTILINE),
        *re.findall(r"  (\w+)\.py  ", tree),
        "__init__",
        "__main__",
    }


def test_the_entries_at_the_top_are_the_ones_drawn() -> None:
    there = {
        entry.name.removesuffix(".py")
        for entry in CORE.iterdir()
        if entry.suffix in ("", ".py") and entry.name != "__pycache__"
    }
    assert there == drawn()
    assert len(there) == 18


def test_no_module_is_longer_than_400_lines() -> None:
    folders = (CORE, *sorted((REPOSITORY / "plugins").glob("*/src")), REPOSITORY / "tools")
    long = [
        f"{file.relative_to(REPOSITORY)}: {lines}"
        for folder in folders
        for file in folder.rglob("*.py")
        if (lines := file.read_text(encoding="utf-8").count("\n")) > 400
    ]
    assert long == []


def test_few_annotations_say_any() -> None:
    hints = [
        hint
        for name, file in counts.modules(REPOSITORY).items()
        if not name.startswith("lightx2v_core.testing")
        for hint in counts.hints_of(ast.parse(file.read_text(encoding="utf-8")))
    ]
    loose = [hint for hint in hints if "Any" in ast.unparse(hint)]
    assert len(loose) < 0.05 * len(hints)


def test_no_module_reaches_itself() -> None:
    """Every import counts; import-linter, which also knows the layers, may not be installed here."""
    known = counts.modules(REPOSITORY)
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in known.items()}
    assert counts.circles({name: counts.imports(name, trees[name], known) for name in known}) == []
