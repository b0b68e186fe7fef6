"""Safe output to a terminal. Names of tensors, files and plugins, reasons and prompts are untrusted: unescaped, they
could set titles, clear the screen, or imitate messages of this program.

All output, including that of ``warnings``, ``logging``, tracebacks and plugin commands, passes through ``Guarded``,
which escapes every control character except the newline. Newlines are escaped where messages are built: by ``escaped``
for a single line, and by ``message`` for text that may have several.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

#: C0, DEL and C1; bidirectional marks and line separators; invisible characters, except the two joiners used by scripts
#: and emoji; lone surrogates
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0001\ud800-\udfff]"
)
#: a newline that a message of ours does not have: continuation lines are indented by two spaces
_FORGED = re.compile(r"\n(?!  )")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escaped(text: str) -> str:
    r"""Escape control characters of a line as ``\x1b``, ``\n``, ``\u202e``, and undecodable bytes as ``\xff``."""
    return _UNSAFE.sub(_escape, text)


def message(text: str) -> str:
    """Escape a message of a first line and continuation lines indented by two spaces. Other newlines are escaped."""
    return "\n".join(escaped(line) for line in _FORGED.sub(_newline, text.rstrip()).split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print a message on lines of its own, escaped."""
    click.echo(message(text), err=err, color=True)


def say_json(data: object, *, indent: int | None = None) -> None:
    """Print ``data`` as JSON, on one line unless ``indent`` is set.

    Characters that cannot be shown are written as JSON escapes, so nothing is lost.
    """
    click.echo(json_text(data, indent=indent, plain=not _writes_all(sys.stdout)), color=True)


def json_text(data: object, *, indent: int | None = None, plain: bool = False) -> str:
    """Serialize ``data`` to JSON without control characters; ``plain``: to ASCII."""
    text = json.dumps(data, ensure_ascii=plain, indent=indent, default=str)
    return "\n".join(_UNSAFE.sub(_json_escape, line) for line in text.split("\n"))


class Guarded(io.TextIOBase):
    """A text stream that escapes control characters and characters missing from its encoding; printing never fails.

    ``unguarded`` is the stream itself. ``cursor`` passes control characters that move the cursor; its callers escape
    untrusted text themselves.
    """

    def __init__(self, raw: TextIO) -> None:
        """Wrap the stream ``raw``."""
        self.unguarded = raw
        self.cursor: TextIO = _Cursor(raw)  # type: ignore[assignment]

    def write(self, text: str, /) -> int:
        """Write ``text``, with each of its lines escaped."""
        self.unguarded.write(
            _encodable("\n".join(escaped(line) for line in text.split("\n")), self.unguarded)
        )
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.unguarded.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.unguarded.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self.unguarded.fileno()

    def writable(self) -> bool:
        """Return whether the stream is writable: always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of the stream."""
        return self.unguarded.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Return the error handler of the stream."""
        return self.unguarded.errors


class _Cursor(Guarded):
    """The stream without escaping of control characters, for progress bars.

    Characters missing from its encoding are escaped: bars contain file names.
    """

    def __init__(self, raw: TextIO) -> None:
        """Wrap the stream ``raw``."""
        self.unguarded = raw

    def write(self, text: str, /) -> int:
        """Write ``text`` with control characters as they are."""
        self.unguarded.write(_encodable(text, self.unguarded))
        return len(text)


@contextmanager
def guarded(*, to_the_end: bool = False) -> Iterator[None]:
    """Replace the standard streams by guarded ones within the block.

    ``to_the_end``: until the process ends, since a traceback is written after the block.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    try:
        yield
    finally:
        if not to_the_end:
            sys.stdout, sys.stderr = before


def cursor_stream() -> TextIO:
    """Return the standard error stream with cursor control. Only ``escaped`` text may be written to it."""
    stream: TextIO = getattr(sys.stderr, "cursor", sys.stderr)  # also of a temporary replacement
    return stream


def _guarded(stream: TextIO | None) -> Any:
    return stream if stream is None or isinstance(stream, Guarded) else Guarded(stream)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, as surrogateescape stores it
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _newline(_found: re.Match[str]) -> str:
    return r"\n"


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def _encodable(text: str, stream: TextIO) -> str:
    if _writes_all(stream):
        return text
    return text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)


def _writes_all(stream: Any) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf16", "utf32")
