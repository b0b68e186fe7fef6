"""A distribution composed from the template: the hooks of the requested kinds, and everything that they use.

The parts of a kind are derived from the code: from ``plugin.py`` the hook of the kind and the definitions that it uses,
from the other modules those imported by kept code, from the requirements those that are imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from lightx2v_core.api import KINDS
from lightx2v_devkit.scaffold.identity import Identity

_HERE = Path(__file__).parent
_PACKAGE = "lightx2v_example"
#: parts of a new distribution; a working copy of the repository may contain other files
_PARTS = (".github", ".gitignore", "README.md", "pyproject.toml", "src", "tests")
_SOURCES = f"src/{_PACKAGE}/"
#: folder with the weights of the checkpoint
_WEIGHTS = f"{_SOURCES}files/"
#: names of the package, the distribution, its implementations and its entry point
_NAMES = re.compile(r"lightx2v_example|lightx2v-example|pebble|\bexample\b")
_SECTION = re.compile(r"<!-- (\w+) -->\n")
_WIDTH = 110
#: requirements that nothing imports by name
_TOOLS = frozenset({"lightx2v-core", "mypy", "pytest", "ruff"})
#: license -> file with its text; the template has the first one
LICENSES: Mapping[str, str] = {"Apache-2.0": "Apache-2.0.txt", "MIT": "MIT.txt"}


@frozen(kw_only=True)
class Wish:
    """The requested properties of a new distribution."""

    identity: Identity
    #: kinds of implementations, in the order of the hooks
    kinds: tuple[str, ...]
    #: one of ``LICENSES``
    license: str = "Apache-2.0"
    #: copyright holder; empty: "the authors of" the distribution
    author: str = ""
    #: year of the copyright
    year: int
    #: required versions of the core, such as ``>=0.1,<0.2``
    admits: str


def composed(wish: Wish) -> dict[str, bytes]:
    """Compose the files of a distribution: path -> content, text as UTF-8."""
    template = _template()
    texts = {path: data.decode() for path, data in template.items() if not path.startswith(_WEIGHTS)}
    modules = _modules(texts, wish.kinds)
    kept = {path: text for path, text in texts.items() if not path.endswith(".py")} | modules
    kept["pyproject.toml"] = _project(kept["pyproject.toml"], modules, wish)
    kept["README.md"] = _readme(kept["README.md"], wish)
    contents = {path: _named(text, wish.identity).encode() for path, text in kept.items()}
    contents["LICENSE"] = _license(wish).encode()
    if "checkpoint" in wish.kinds:
        contents |= {path: data for path, data in template.items() if path.startswith(_WEIGHTS)}
    return {_named(path, wish.identity): data for path, data in contents.items()}


def _template() -> dict[str, bytes]:
    """Read all files of the template: path -> content."""
    root = _HERE / "template"
    contents = {}
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root)
        # installation compiles the modules, and using the template in place creates caches
        caches = any(part.endswith(("cache__", "_cache")) for part in path.parts)
        if file.is_file() and path.parts[0] in _PARTS and not caches:
            contents[path.as_posix()] = file.read_bytes()
    return contents


def _modules(template: Mapping[str, str], kinds: Sequence[str]) -> dict[str, str]:
    """Collect the plugin module for these kinds, their tests, and all modules that these import."""
    kept = {f"{_SOURCES}__init__.py": template[f"{_SOURCES}__init__.py"]}
    kept[f"{_SOURCES}plugin.py"] = _shaken(template[f"{_SOURCES}plugin.py"], kinds)
    for kind in kinds:
        kept[f"tests/test_{kind}.py"] = template[f"tests/test_{kind}.py"]
    waiting = list(kept.values())
    while waiting:
        for module in _imported(waiting.pop()):
            path = f"src/{module.replace('.', '/')}.py"
            if path in template and path not in kept:
                kept[path] = template[path]
                waiting.append(template[path])
    return kept


def _imported(source: str) -> Iterator[str]:
    """Yield the modules that a source imports, at any level."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def _shaken(source: str, kinds: Sequence[str]) -> str:
    """Reduce a module to the definitions that the hooks of some kinds use, with the imports that these need."""
    lines = source.splitlines(keepends=True)
    body = ast.parse(source).body
    first = next(index for index, node in enumerate(body) if isinstance(node, ast.FunctionDef | ast.ClassDef))
    definitions = {
        node.name: node for node in body[first:] if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert len(definitions) == len(body) - first, (
        "after its imports the plugin module may contain only functions and classes"
    )
    reached: set[str] = set()
    waiting = [KINDS[kind][0] for kind in kinds]
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in reached:
            reached.add(name)
            waiting += _used(definitions[name])
    used = {word for name in reached for word in _used(definitions[name])}
    docstring = ast.get_source_segment(source, body[0]) or ""
    parts = [docstring, *_imports(body[1:first], used)]
    text = "\n\n".join(parts) + "\n"
    for name, node in definitions.items():
        if name in reached:
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            text += "\n\n" + "".join(lines[start - 1 : node.end_lineno])
    return text


def _used(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _imports(nodes: Sequence[ast.stmt], used: set[str], indent: str = "") -> list[str]:
    """Write groups of imports as source, without unused names; groups end at empty lines of the template."""
    groups: list[list[str]] = []
    end = 0
    for node in nodes:
        if node.lineno > end + 1 or not groups:
            groups.append([])
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.If):
            inside = _imports(node.body, used, indent + "    ")
            if inside:
                groups[-1].append(f"{indent}if {ast.unparse(node.test)}:\n" + "\n\n".join(inside))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            # whether TYPE_CHECKING is needed depends on the other imports
            always = getattr(node, "module", "") == "__future__"
            names = [
                alias
                for alias in node.names
                if always or (alias.asname or alias.name).partition(".")[0] in used
            ]
            if names:
                groups[-1].append(_import(node, [ast.unparse(alias) for alias in names], indent))
    written = ["\n".join(group) for group in groups if group]
    if (
        not indent
        and any(group.startswith("if TYPE_CHECKING") for group in written)
        and "TYPE_CHECKING" not in used
    ):
        return _imports(nodes, {*used, "TYPE_CHECKING"})
    return written


def _import(node: ast.Import | ast.ImportFrom, names: Sequence[str], indent: str) -> str:
    """Write an import statement as the formatter does."""
    if isinstance(node, ast.Import):
        return "\n".join(f"{indent}import {name}" for name in names)
    line = f"{indent}from {node.module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join(
        [f"{indent}from {node.module} import (", *(f"{indent}    {name}," for name in names), f"{indent})"]
    )


def _project(text: str, modules: Mapping[str, str], wish: Wish) -> str:
    """Reduce ``pyproject.toml`` to the requirements that the modules import."""
    needed = {name.partition(".")[0] for source in modules.values() for name in _imported(source)}

    def requirement(match: re.Match[str]) -> str:
        name = re.split(r"[^\w-]", match[1])[0]
        if name in ("lightx2v-core", "lightx2v-devkit"):  # they have the same version
            return f'    "{name}{wish.admits}",\n'
        return match[0] if name in _TOOLS or name in needed else ""

    text = re.sub(r'    "([^"]+)",\n', requirement, text)
    author = wish.author or f"The authors of {wish.identity.distribution}"
    for old, new in (
        ('license = "Apache-2.0"', f'license = "{wish.license}"'),
        ('name = "The authors of lightx2v-example"', f"name = {_quoted(author)}"),
        ('"A plugin for lightx2v-core"', f'"{_words(wish.kinds)} for lightx2v-core"'),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def _quoted(text: str) -> str:
    """Write a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _words(kinds: Sequence[str]) -> str:
    words = [("LoRA applier" if kind == "lora_applier" else kind.replace("_", " ")) for kind in kinds]
    listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    article = "An" if listed[0] in "aeiou" else "A"
    return f"{article} {listed}"


def _readme(text: str, wish: Wish) -> str:
    parts = _SECTION.split(text)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    kept = [section for name, section in sections if name == "all" or name in wish.kinds]
    return "".join([parts[0], *kept]).replace("License: Apache-2.0", f"License: {wish.license}")


def _license(wish: Wish) -> str:
    text = (_HERE / "licenses" / LICENSES[wish.license]).read_text(encoding="utf-8")
    holder = wish.author or f"the authors of {wish.identity.distribution}"
    return text.replace("YEAR HOLDER", f"{wish.year} {holder}")


def _named(text: str, identity: Identity) -> str:
    names = {_PACKAGE: identity.package, "lightx2v-example": identity.distribution}
    return _NAMES.sub(lambda match: names.get(match[0], identity.name), text)
