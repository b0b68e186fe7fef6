"""Which files a request may name: only those that were uploaded before.

Gradio copies the files that a request names into the uploads, from any place of the machine or of the network: its own
check works only in a server that it started itself.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightx2v_gradio.results import upload_path

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

#: what stands before a path in the address of an upload
FILE_PREFIX = "/gradio_api/file="


def refusal_reason(body: bytes, output: Path) -> str | None:
    """Why the request with this body is refused; None when all files that it names were sent before.

    ``body`` is read as the page's framework reads it. ``output`` is the output folder, with the uploads below it.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return "a request is JSON"
    for json_object in _json_objects(message):
        path, url = json_object.get("path"), json_object.get("url")
        if "path" in json_object and (not isinstance(path, str) or upload_path(output, path) is None):
            return f"{_shorten(path)} was not sent to this page"
        if url is not None and not (isinstance(path, str) and _is_upload_url(url, path)):
            return f"{_shorten(url)} was not sent to this page"
    return None


async def read_body(receive: Receive) -> bytes | None:
    """The body of a request; None when it broke off, or went beyond what ``receive`` lets through."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for the next reader; what comes after it comes from ``receive``."""
    unread = [body]

    async def replayed() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replayed


def _json_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value, however deep."""
    remaining = [value]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            yield value
            remaining.extend(value.values())
        elif isinstance(value, list):
            remaining.extend(value)


def _is_upload_url(url: Any, path: str) -> bool:
    """Whether an address is that of an upload at ``path``, written plainly or quoted."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://", "/")):
        return False
    name = url.partition(FILE_PREFIX)[2]
    return path in (name, unquote(name))


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
