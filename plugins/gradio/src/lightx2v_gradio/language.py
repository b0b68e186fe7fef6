"""The language of the page: chosen by a cookie that the page's switch sets, else by the browser's preferences.

English is served from the root, others below a path of their own (``/zh``): each has a Gradio page with its own
texts, so that a tab stays in its language even when another tab switches. The address in the browser is ``/`` for all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

from lightx2v_gradio.texts import TEXTS, Texts
from lightx2v_gradio.uploads import AsgiMessage

Send = Callable[[AsgiMessage], Awaitable[None]]

#: the cookie of the language switch
LANGUAGE = "lightx2v_language"
#: the language of the root
DEFAULT = next(iter(TEXTS))
_YEAR = 365 * 86400


def path_prefix(language: str) -> str:
    """Return the path below which the page of a language is mounted."""
    return "" if language == DEFAULT else f"/{language}"


def split_path(path: str) -> tuple[str, str]:
    """Split a path into the language of its page and the rest."""
    for language in TEXTS:
        prefix = path_prefix(language)
        if prefix and path.startswith(f"{prefix}/"):
            return language, path[len(prefix) :]
    return DEFAULT, path


def choose_language(cookie: str, accept: str) -> str:
    """Choose a language by the cookie of the switch, else by an ``Accept-Language`` header (RFC 9110, 12.5.4)."""
    if cookie in TEXTS:
        return cookie
    weighted = []
    for position, part in enumerate(accept.split(",")):
        tag, _, parameters = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in TEXTS and (weight := _weight(parameters)) > 0:
            weighted.append((-weight, position, language))
    return min(weighted)[2] if weighted else DEFAULT


def switch_script(texts: Texts) -> str:
    """Return the script that sets the cookie of another language and loads the page again."""
    value = f"{LANGUAGE}={texts.language}; path=/; max-age={_YEAR}; samesite=strict"
    return f"() => {{ document.cookie = {json.dumps(value)}; window.location.reload(); }}"


def with_language(send: Send, texts: Texts) -> Send:
    """Send a page of Gradio with its ``html lang`` and, for Gradio's own texts, the browser's language set."""
    start: AsgiMessage = {}
    parts: list[bytes] = []

    async def send_page(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = _localized(b"".join(parts), texts)
        headers = [(key, value) for key, value in start["headers"] if key.lower() != b"content-length"]
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"content-language", texts.tag.encode()),
            (b"vary", b"Accept-Language, Cookie"),
            (b"cache-control", b"no-cache"),
        ]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return send_page


def _localized(page: bytes, texts: Texts) -> bytes:
    tag = texts.tag
    script = (
        f"<script>Object.defineProperty(navigator, 'language', {{value: '{tag}'}});"
        f"Object.defineProperty(navigator, 'languages', {{value: ['{tag}']}});</script>"
    ).encode()
    page = re.sub(rb'(<html\b[^>]*?\blang=")[^"]*', rb"\g<1>" + tag.encode(), page, count=1)
    return re.sub(rb"<head>", lambda head: head[0] + script, page, count=1)


def _weight(parameters: str) -> float:
    match = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", parameters)
    return float(match[1]) if match else 1.0 if not parameters.strip() else 0.0
