"""The check of the files that a request names: only earlier uploads are allowed.

Gradio copies the files that a request names into the uploads, from any path of the machine or any host: its own check
works only in a server that it started itself.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightx2v_gradio.results import upload_path
from lightx2v_gradio.texts import Message, message

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]

#: the part of the address of an upload before its path; pages of other languages have a prefix
FILE_PREFIX = "/gradio_api/file="


def refusal_reason(body: bytes, output: Path) -> Message | None:
    """Return the reason to refuse a request with this body; None if all files that it names were uploaded before.

    ``body`` is parsed as Gradio parses it. ``output`` is the output folder, with the uploads below it.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return message("refusal.json")
    for json_object in _json_objects(request):
        path, url = json_object.get("path"), json_object.get("url")
        if "path" in json_object and (not isinstance(path, str) or upload_path(output, path) is None):
            return message("refusal.file", file=_shorten(path))
        if url is not None and not (isinstance(path, str) and _is_upload_url(url, path)):
            return message("refusal.file", file=_shorten(url))
    return None


async def read_body(receive: Receive) -> bytes | None:
    """Read the body of a request; None if it ended early or exceeded the limit of ``receive``."""
    pieces: list[bytes] = []
    while True:
        part = await receive()
        if part["type"] != "http.request":
            return None
        pieces.append(part.get("body", b""))
        if not part.get("more_body", False):
            return b"".join(pieces)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that delivers a body that was read already, then continues with ``receive``."""
    unread = [body]

    async def replayed() -> AsgiMessage:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replayed


def _json_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in a value, at any depth."""
    remaining = [value]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            yield value
            remaining.extend(value.values())
        elif isinstance(value, list):
            remaining.extend(value)


def _is_upload_url(url: Any, path: str) -> bool:
    """Return whether an address, plain or percent-encoded, is that of the upload at ``path``."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://", "/")):
        return False
    name = url.partition(FILE_PREFIX)[2]
    return path in (name, unquote(name))


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
