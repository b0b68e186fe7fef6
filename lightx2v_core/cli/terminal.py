"""What leaves for a terminal. Names of tensors, files and plugins, reasons and prompts come from strangers: as they are
they could set titles, clear the screen, or pose as lines of ours.

Whatever is written, by us, by ``warnings``, ``logging``, tracebacks or somebody's command, passes ``Guarded``, so that
no control character but the newline leaves. Newlines are what our own messages are made of, so a forged line is kept
out where lines are made: ``escaped`` for what is one line, ``message`` for what may be several.
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

#: C0, DEL and C1; marks that turn the direction of a line or separate lines; what is not seen at all, but for the two
#: joiners that scripts and pictures are written with; halves of surrogate pairs
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0001\ud800-\udfff]"
)
#: a newline that ends no line of ours: those of a message go on with two spaces
_FORGED = re.compile(r"\n(?!  )")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escaped(text: str) -> str:
    r"""``text`` as one line that can be shown: control characters as ``\x1b``, ``\n``, ``\u202e``; bytes of a file name
    that are no text as ``\xff``."""
    return _UNSAFE.sub(_escape, text)


def message(text: str) -> str:
    """``text`` as a message that can be shown: its first line, and more that are indented by two spaces. Any other
    newline is none of ours and is escaped."""
    return "\n".join(escaped(line) for line in _FORGED.sub(_newline, text.rstrip()).split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print a message as a line, or several, of its own."""
    click.echo(message(text), err=err, color=True)


def say_json(data: object, *, indent: int | None = None) -> None:
    """Print ``data`` as JSON, a line unless there is an ``indent``; characters that cannot be shown as JSON writes
    them, so that nothing is lost."""
    click.echo(json_text(data, indent=indent, plain=not _writes_all(sys.stdout)), color=True)


def json_text(data: object, *, indent: int | None = None, plain: bool = False) -> str:
    """``data`` as JSON that can be shown; ``plain``: in ASCII."""
    text = json.dumps(data, ensure_ascii=plain, indent=indent, default=str)
    return "\n".join(_UNSAFE.sub(_json_escape, line) for line in text.split("\n"))


class Guarded(io.TextIOBase):
    """A text stream behind which a terminal may be. Control characters are escaped, and what its encoding does not have
    is written as an escape, too; nothing that is printed is an error.

    ``unguarded`` is the stream itself, and ``cursor`` is for what moves the cursor: who writes there escapes what comes
    from others.
    """

    def __init__(self, raw: TextIO) -> None:
        self.unguarded = raw
        self.cursor: TextIO = _Cursor(raw)  # type: ignore[assignment]

    def write(self, text: str, /) -> int:
        self.unguarded.write(
            _encodable("\n".join(escaped(line) for line in text.split("\n")), self.unguarded)
        )
        return len(text)

    def flush(self) -> None:
        self.unguarded.flush()

    def isatty(self) -> bool:
        return self.unguarded.isatty()

    def fileno(self) -> int:
        return self.unguarded.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.unguarded.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.unguarded.errors


class _Cursor(Guarded):
    """The stream with its control characters as they are, for bars. What its encoding does not have is escaped too:
    names of files are in them."""

    def __init__(self, raw: TextIO) -> None:
        self.unguarded = raw

    def write(self, text: str, /) -> int:
        self.unguarded.write(_encodable(text, self.unguarded))
        return len(text)


@contextmanager
def guarded(*, to_the_end: bool = False) -> Iterator[None]:
    """While this is open, what is written to the standard streams can be shown; ``to_the_end`` of the process also
    afterwards, since a traceback is written then."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)
    try:
        yield
    finally:
        if not to_the_end:
            sys.stdout, sys.stderr = before


def cursor_stream() -> TextIO:
    """Standard error for what moves the cursor. Only ``escaped`` text may be written to it."""
    stream: TextIO = getattr(sys.stderr, "cursor", sys.stderr)  # also of what stands before it for a while
    return stream


def _guarded(stream: TextIO | None) -> Any:
    return stream if stream is None or isinstance(stream, Guarded) else Guarded(stream)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no text, as Python keeps it
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
