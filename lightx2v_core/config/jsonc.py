"""Strict parser for JSON with ``//`` and ``/* */`` comments and trailing commas.

Comments and trailing commas are replaced by spaces of the same length before the standard parser runs, so line and
column in every message are those of the file. Repeated keys and numbers that are not finite are errors.

Input is bounded: ``BYTES`` of a file, ``DEPTH`` and ``ENTRIES`` of a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from attrs import frozen

from lightx2v_core.config.textfile import read_text
from lightx2v_core.errors import ConfigError

Path_ = tuple[str | int, ...]

#: the largest configuration file, in bytes
BYTES = 16 << 20
#: largest nesting depth, and largest total number of keys and list entries
DEPTH, ENTRIES = 32, 500_000

_TOKEN = re.compile(
    r'(?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*(?P<closed>")?)|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<open>/\*)'
    r'|(?P<other>[^"/,\[\]{}\s]+|\s+|.)',
    re.DOTALL,
)
#: a token of JSON without comments
_PLAIN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@frozen(kw_only=True)
class Document:
    """A parsed value, with the positions of its keys in the text."""

    value: Any
    text: str
    #: path of a key, such as ``("loras", 0, "path")`` -> its offset in ``text``
    offsets: Mapping[Path_, int]

    def place(self, path: Path_) -> str:
        """Return the place (``line 3, column 5``) of the key at ``path`` or its nearest parent; else empty."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.offsets:
                return _place(self.text, self.offsets[path[:end]])
        return ""


def read(path: Path) -> dict[str, object]:
    """Read the object in a file. Raises ``ConfigError`` with the file, line and column of the error."""
    value: dict[str, object] = read_document(path).value
    return value


def read_document(path: Path) -> Document:
    """Read the object in a file, with the positions of its keys. Raises ``ConfigError`` as ``read`` does."""
    document = _document(read_text(path, "configuration file", BYTES), str(path))
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}: expected an object {{...}} at the top, got {_word(document.value)}")
    return document


def loads(text: str, where: str = "text") -> Any:
    """Parse JSONC ``text``; ``where`` is its name in errors."""
    return _document(text, where).value


def _document(text: str, where: str) -> Document:
    plain = _blanked(text, where)
    try:
        value = json.loads(plain, parse_float=_finite, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: line {exc.lineno}, column {exc.colno}: {exc.msg}") from None
    except ValueError as exc:
        at = next((match.start() for match in _PLAIN.finditer(plain) if _is_no_number(match.group())), 0)
        raise ConfigError(f"{where}: {_place(plain, at)}: {exc}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    offsets: dict[Path_, int] = {}
    for path, at in _keys(plain):
        if path in offsets:
            raise ConfigError(
                f"{where}: {_place(plain, at)}: duplicate key {path[-1]!r}, "
                f"first at {_place(plain, offsets[path])}"
            )
        offsets[path] = at
    return Document(value=value, text=plain, offsets=offsets)


def _blanked(text: str, where: str) -> str:
    """Replace comments and trailing commas by spaces."""
    out: list[str] = []
    comma: int | None = None  # index in ``out`` of a comma that may be a trailing one
    last = ""  # the last significant token
    depth = commas = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "open":
            place = _place(text, match.start())
            raise ConfigError(f"{where}: {place}: unclosed comment /*")
        if token[0] == '"' and match.group("closed") is None:
            place = _place(text, match.start())
            raise ConfigError(f"{where}: {place}: unclosed string")
        if match.lastgroup == "comment":
            out.append(re.sub(r"[^\n]", " ", token))
            continue
        out.append(token)
        if token.isspace():
            continue
        commas += token == ","
        if commas >= ENTRIES:
            raise ConfigError(
                f"{where}: {_place(text, match.start())}: more than {ENTRIES} keys and list entries"
            )
        depth += (token in "[{") - (token in "]}")
        if depth > DEPTH:
            raise ConfigError(
                f"{where}: {_place(text, match.start())}: nested too deeply (over {DEPTH} levels)"
            )
        if token in "]}" and comma is not None:
            out[comma] = " "
        # a comma needs a value before it: "[,]" stays an error
        comma = len(out) - 1 if token == "," and last not in ("", ",", "[", "{", ":") else None
        last = token
    return "".join(out)


def _keys(text: str) -> Iterator[tuple[Path_, int]]:
    """Yield the path and offset of every key of valid JSON."""
    path: list[str | int] = []  # of the next value
    objects: list[bool] = []
    key_next = False
    for match in _PLAIN.finditer(text):
        token = match.group()
        if token in ("{", "["):
            objects.append(token == "{")
            path.append(0)
            key_next = objects[-1]
        elif token in ("}", "]"):
            objects.pop()
            path.pop()
            key_next = False
        elif token == ",":
            key_next = objects[-1]
            if not key_next:
                path[-1] = int(path[-1]) + 1
        elif key_next and token != ":":
            path[-1] = json.loads(token)
            key_next = False
            yield tuple(path), match.start()


def _place(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _is_no_number(token: str) -> bool:
    """Return whether the standard parser rejects a token as a number: not finite, or too long."""
    try:
        return not math.isfinite(float(token))
    except ValueError:
        return False


def _word(value: object) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
