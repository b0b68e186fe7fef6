"""Writes docs/hooks.md from the sources: hooks, the fields of their specs, and the protocols of built objects.

python docs/hooks_reference.py
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from lightx2v_core.spec import components as parts
from lightx2v_core.spec import context, memory, protocols, request, specs, tensors
from lightx2v_core.spec import hooks as hookspecs
from lightx2v_core.spec import recognition as facts

TARGET = Path(__file__).with_name("hooks.md")
MODULES = (specs, parts, facts, context, memory, request, protocols, tensors)
#: kind -> protocol of the object that ``build`` returns
PROTOCOLS = {
    "weight_loader": "WeightSource",
    "quantizer": "Quantizer",
    "attention": "Attention",
    "offloader": "Offloader",
    "lora_applier": "LoraApplier",
    "scheduler": "Scheduler",
    "model": "VideoModel",
}
#: data classes and protocols that specs and protocols refer to
DATA = (
    "NoOptions", "QuantizerOptions", "BuildContext", "Device", "Budget", "Speeds", "MemoryNeed", "Workload",
    "OffloadForecast", "SchedulerContext", "Request", "KeyMap", "ComponentSpec", "CheckpointFacts", "Recognition",
    "Defaults", "Geometry", "Stage", "SizeRules", "TaskSpec", "Target", "Repository", "RepositoryFiles", "ModelParts",
    "LoadedComponent", "ModuleWeights", "ModuleTensor", "DirectSource", "Adapter", "Change", "Step", "Conditions",
    "Segment", "Header", "TensorInfo", "LayerFormat",
)  # fmt: skip

INTRODUCTION = """\
# Hooks

<!-- written by docs/hooks_reference.py from the sources; change those -->

A plugin is a module under the entry-point group `lightx2v_core.plugins`. Its functions marked with `hookimpl` return
specs; each is called once, at load time, without arguments. A spec describes an implementation and contains the
functions that build it. Heavy packages are imported inside these functions, so that listing plugins imports none.
Everything here is imported from `lightx2v_core.api`; [writing a plugin](writing-a-plugin.md) walks through an example.
"""


@frozen(kw_only=True)
class Field:
    """An attribute of a class: its name, type, default and the comment above it."""

    name: str
    type: str
    default: str
    text: str


def reference() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## All specs\n", *described("Spec")]
    for kind, (hook, spec) in hookspecs.KINDS.items():
        function = getattr(hookspecs, hook)
        parts += [f"## `{hook}`\n", f"{single(function.__doc__).removesuffix('.')}, as `{spec.__name__}`s.\n"]
        parts += described(spec.__name__)
        if kind in PROTOCOLS:
            parts += [f"### Built object: `{PROTOCOLS[kind]}`\n", *described(PROTOCOLS[kind])]
    parts.append("## Data\n")
    for name in DATA:
        parts += [f"### `{name}`\n", *described(name)]
    return "\n".join(parts).rstrip() + "\n"


def described(name: str) -> Iterator[str]:
    """Yield the docstring of a class, the table of its own fields, and its methods."""
    node = definition(name)
    yield prose(ast.get_docstring(node) or "")
    rows = list(fields(node))
    if rows:
        yield "| field | type | default | |\n|---|---|---|---|"
        yield (
            "\n".join(f"| `{f.name}` | {code(f.type)} | {code(f.default)} | {f.text} |" for f in rows) + "\n"
        )
    yield from methods(node)


def fields(node: ast.ClassDef) -> Iterator[Field]:
    """Yield the public fields of a class with the ``#:`` comments above them."""
    lines = source_of(node).splitlines()
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_":
            comment: list[str] = []
            number = item.lineno - 2
            while number >= 0 and (match := re.match(r"\s*#: ?(.*)", lines[number])):
                comment.insert(0, match[1])
                number -= 1
            yield Field(
                name=item.target.id,
                type=ast.unparse(item.annotation),
                default=default(item.value),
                text=single(" ".join(comment)),
            )


def default(value: ast.expr | None) -> str:
    """Return the source text of a default; empty for a required field."""
    if value is None:
        return ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {word.arg: ast.unparse(word.value) for word in value.keywords}
        return given.get("default", f"{given['factory']}()" if "factory" in given else "")
    return ast.unparse(value)


def methods(node: ast.ClassDef) -> Iterator[str]:
    """Yield the public methods and properties of a class with their docstrings."""
    for item in node.body:
        public = isinstance(item, ast.FunctionDef) and (
            item.name == "__call__" or not item.name.startswith("_")
        )
        if isinstance(item, ast.FunctionDef) and public:
            kind = "" if not item.decorator_list else "property "
            arguments = (
                "" if kind else f"({ast.unparse(item.args).removeprefix('self, ').removeprefix('self')})"
            )
            returns = f" -> {ast.unparse(item.returns)}" if item.returns is not None else ""
            yield f"- {kind}`{item.name}{arguments}{returns}`"
            if text := ast.get_docstring(item):
                yield textwrap.indent(prose(text).rstrip(), "  ")
    yield ""


def definition(name: str) -> ast.ClassDef:
    """Find the definition of a class in ``MODULES``."""
    for module in MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
    raise KeyError(name)


def source_of(node: ast.ClassDef) -> str:
    """Return the source of the module that defines a class, so that line numbers match."""
    for module in MODULES:
        text = inspect.getsource(module)
        if any(isinstance(item, ast.ClassDef) and item.name == node.name for item in ast.parse(text).body):
            return text
    raise KeyError(node.name)


def single(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def prose(text: str) -> str:
    return text.replace("``", "`") + "\n"


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
