"""Counts about the structure of the core: lines, entries, functions, names, annotations, imports.

python tools/counts.py                 this tree python tools/counts.py REVISION ...    also these revisions, from git

Code lines are lines with a token that is neither comment nor docstring. Imports are all of them, including those inside
functions and for type checking; a circle is a set of modules that import each other.
"""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = "lightx2v_core"
_QUIET = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def modules(tree: Path) -> dict[str, Path]:
    """Return the modules of the core by dotted name, without the templates of other distributions."""
    found = {}
    for file in sorted((tree / CORE).rglob("*.py")):
        if "template" not in file.parts:
            parts = file.relative_to(tree).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def code_lines(text: str) -> int:
    """Count the lines of code, without docstrings and comments."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docs.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _QUIET:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def hints_of(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield all annotations of parameters, results, variables and fields."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, _FUNCTIONS) and node.returns is not None:
            yield node.returns


def imports(name: str, tree: ast.AST, known: Mapping[str, Path]) -> set[str]:
    """Return the modules of the core that a module imports anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(CORE):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found - {name}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Find the sets of modules that import each other, largest first (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in edges:
        if node not in order:
            visit(node)
    return sorted(found, key=len, reverse=True)


def counts(tree: Path) -> dict[str, str]:
    """Compute all counts of a tree, as text."""
    known = modules(tree)
    texts = {name: file.read_text(encoding="utf-8") for name, file in known.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    rooms: Counter[str] = Counter()
    for name, text in texts.items():
        inside = known[name].relative_to(tree / CORE).parts
        rooms[inside[0] if len(inside) > 1 else "(top)"] += code_lines(text)
    inner = [name for name in known if not name.startswith(f"{CORE}.testing")]
    functions = [node for name in inner for node in ast.walk(trees[name]) if isinstance(node, _FUNCTIONS)]
    lengths = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
    raw = sorted(texts[name].count("\n") for name in inner)
    hints = [hint for name in inner for hint in hints_of(trees[name])]
    loose = [hint for hint in hints if any(isinstance(n, ast.Name) and n.id == "Any" for n in ast.walk(hint))]
    names = Counter(node.id for name in inner for node in ast.walk(trees[name]) if isinstance(node, ast.Name))
    edges = {name: imports(name, trees[name], known) for name in known}
    rings = circles(edges)
    top = {entry.name.removesuffix(".py") for entry in (tree / CORE).iterdir()}
    entries = {name for name in top if name not in ("__pycache__", "py.typed") and "." not in name}
    asserts = sum(text.count("assert isinstance(") for name, text in texts.items() if name in inner)
    total = sum(names.values())
    return {
        "entries at the top": str(len(entries)),
        "code lines, without testing": str(sum(rooms.values()) - rooms["testing"]),
        "code lines by folder": ", ".join(f"{room} {lines}" for room, lines in rooms.most_common()),
        "modules; raw lines median / p90 / max": f"{len(inner)}; {_spread(raw)}",
        "functions; lines median / p90 / max": f"{len(functions)}; {_spread(lengths)}",
        "functions over 60 lines": str(sum(length > 60 for length in lengths)),
        "annotations with Any": f"{len(loose)} of {len(hints)} ({100 * len(loose) / len(hints):.1f} %)",
        "assert isinstance": str(asserts),
        "names `found` and `item`, in 1,000": " and ".join(
            f"{1000 * names[word] / total:.1f}" for word in ("found", "item")
        ),
        "imports a module": f"{sum(map(len, edges.values())) / len(edges):.1f}",
        "modules in circles": f"{sum(map(len, rings))} (largest {len(rings[0]) if rings else 0})",
    }


def _spread(values: Sequence[int]) -> str:
    return f"{statistics.median(values):.0f} / {values[int(0.9 * len(values))]} / {values[-1]}"


def checked_out(revision: str, folder: Path) -> Path:
    """Extract the core of a revision to a folder of its own."""
    archive = subprocess.run(["git", "archive", revision, CORE], cwd=ROOT, capture_output=True, check=True)
    target = folder / revision
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")
    return target


def main(revisions: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trees = {name: checked_out(name, Path(folder)) for name in revisions} | {"this tree": ROOT}
        for title, tree in trees.items():
            print(title)
            for label, value in counts(tree).items():
                print(f"  {label}: {value}")


if __name__ == "__main__":
    main(sys.argv[1:])
