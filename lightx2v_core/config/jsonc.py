"""JSON with ``//`` and ``/* */`` comments and trailing commas, read strictly.

Comments and trailing commas become blanks of the same length before the standard parser sees the text, so line
and column in its messages are those of the file. Repeated keys and numbers that are not finite are errors.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from lightx2v_core.errors import ConfigError

_TOKEN = re.compile(
    r'(?P<string>"(?:\\.|[^"\\\n])*")|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<open>/\*)|(?P<other>[^"/,\[\]{}\s]+|.)',
    re.DOTALL,
)


def read(path: Path) -> dict[str, Any]:
    """The object in a file. ``ConfigError`` names the file, line and column of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {str(path)!r} does not exist") from None
    except OSError as exc:
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {exc.strerror or exc}") from None
    except ValueError as exc:  # no UTF-8, or a name that no file can have
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {exc}") from None
    value = loads(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected an object {{...}} at the top, got {_word(value)}")
    return value


def loads(text: str, where: str = "text") -> Any:
    """The value of JSONC ``text``; ``where`` names it in errors."""
    try:
        return json.loads(
            _blanked(text, where),
            object_pairs_hook=_without_repeats,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: line {exc.lineno}, column {exc.colno}: {exc.msg}") from None
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None


def _blanked(text: str, where: str) -> str:
    """``text`` with comments and trailing commas replaced by spaces."""
    out: list[str] = []
    comma: int | None = None  # where in ``out`` a comma stands that may turn out to be a trailing one
    last = ""  # the last significant token
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "open":
            line = text.count("\n", 0, match.start()) + 1
            raise ConfigError(f"{where}: line {line}: the comment that starts here with /* is never closed")
        if match.lastgroup == "comment":
            out.append(re.sub(r"[^\n]", " ", token))
            continue
        out.append(token)
        if token.isspace():
            continue
        if token in "]}" and comma is not None:
            out[comma] = " "
        # a comma needs a value before it: "[,]" stays an error
        comma = len(out) - 1 if token == "," and last not in ("", ",", "[", "{", ":") else None
        last = token
    return "".join(out)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is given more than once in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _word(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
