"""Help texts of the options of an implementation, as its author wrote them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping

import attrs


def option_help(cls: type[attrs.AttrsInstance]) -> Mapping[str, str]:
    """Return the help text of each option of a class.

    This is the ``help`` of its metadata, else the ``#:`` comment above it in the source of the class; empty if there
    is neither, or no source.
    """
    above = _comments(cls)
    return {
        field.name: field.metadata.get("help") or above.get(field.name, "") for field in attrs.fields(cls)
    }


def _comments(cls: type[object]) -> dict[str, str]:
    comments: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):  # a subclass may redeclare an option
        try:
            source = textwrap.dedent(inspect.getsource(part))
            (definition,) = ast.parse(source).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        lines = source.splitlines()
        for statement in definition.body if isinstance(definition, ast.ClassDef) else ():
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                above: list[str] = []
                number = statement.lineno - 2
                while number >= 0 and lines[number].strip().startswith("#:"):
                    above.insert(0, lines[number].strip().removeprefix("#:").strip())
                    number -= 1
                comments[statement.target.id] = " ".join(above)
    return comments
