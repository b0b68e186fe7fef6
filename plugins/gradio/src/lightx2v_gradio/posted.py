"""What a browser says to the page: every file that it names must be one that was sent before.

Gradio copies the files that a request names into the uploads, from any place of the machine or of the network: its own
check works only in a server that it started itself.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightx2v_gradio.results import uploaded

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

#: what stands before a path in the address of an upload
FILE = "/gradio_api/file="


def objection(body: bytes, output: Path) -> str | None:
    """Why the request with this body is refused; None when all files that it names were sent before.

    ``body`` is read as the page's framework reads it. ``output`` is the output folder, with the uploads below it.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "a request is JSON"
    for item in _objects(said):
        path, url = item.get("path"), item.get("url")
        if "path" in item and (not isinstance(path, str) or uploaded(output, path) is None):
            return f"{_short(path)} was not sent to this page"
        if url is not None and not (isinstance(path, str) and _is_of(url, path)):
            return f"{_short(url)} was not sent to this page"
    return None


async def whole(receive: Receive) -> bytes | None:
    """The body of a request; None when it broke off, or went beyond what ``receive`` lets through."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for the next reader; what comes after it comes from ``receive``."""
    waiting = [body]

    async def replayed() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replayed


def _objects(said: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a value, however deep."""
    left = [said]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield item
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)


def _is_of(url: Any, path: str) -> bool:
    """Whether an address is that of an upload at ``path``, written plainly or quoted."""
    if not isinstance(url, str) or not url.startswith(("http://", "https://", "/")):
        return False
    name = url.partition(FILE)[2]
    return path in (name, unquote(name))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
