"""What stands in front of the page: who may come in, which addresses there are, and what may be sent and fetched.

An ASGI application around another one. Gradio has many more addresses than the page needs; all others are closed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import frozen
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response

from lightx2v_gradio.posted import FILE, Message, Receive, again, objection, whole
from lightx2v_gradio.results import served, uploaded

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: the cookies of a browser: whose jobs it may see, and that it has shown its token
SESSION, TOKEN = "lightx2v_session", "lightx2v_token"
#: names that the loopback interface is called by
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: what the page asks for, and nothing else
_OPEN = re.compile(
    r"/(?:|config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:assets|static|svelte)/[\w./@~+-]+"
    r"|gradio_api/(?:queue/join|queue/data|heartbeat/\w+|upload|upload_progress|startup-events|theme\.css|reset/?|cancel"
    r"|info/?|run/\w+|custom_component/[\w./-]+|file=.+))"
)
_UPLOAD, _RESULT = "/gradio_api/upload", "/results/"
#: where values of the page's components arrive, files among them
_SAID = re.compile(r"/gradio_api/(?:run/\w+|queue/join)")
#: nothing of another host is loaded, shown or called, and no other page may hold this one
_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio compiles the templates of its components in the browser
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: largest body of anything but an upload
_MOST_SAID = 4 * 2**20


@frozen(kw_only=True)
class Rules:
    """Who may come in and how much they may send."""

    #: the folder of results; nothing else is served
    output: Path
    #: whether the server can only be reached from this machine
    loopback: bool
    #: ``USER:PASSWORD``, asked for by the browser
    auth: str | None = None
    #: given once in the address (``?token=``), then kept in a cookie
    token: str | None = None
    #: bytes of one upload
    upload: int = 512 * 2**20


class Door:
    """The application behind these rules."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what may go through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # Gradio's page needs no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        session, known = _session(headers)
        polite = _polite(send, None if known else session)
        answer = self._answer(scope, headers)
        if answer is not None:
            await answer(scope, receive, polite)
            return
        scope["headers"] = _with_session(scope["headers"], session)
        limited = _limited(receive, self._rules.upload if scope["path"] == _UPLOAD else _MOST_SAID)
        if _SAID.fullmatch(scope["path"]):
            body = await whole(limited)
            if refused := self._objection(body):
                await refused(scope, receive, polite)
                return
            limited = again(body or b"", limited)
        await self._app(scope, limited, polite)

    def _objection(self, body: bytes | None) -> Response | None:
        """The answer to a request that names a file which was not sent, or that did not arrive."""
        if body is None:
            return _no(413, "that broke off, or is too much")
        why = objection(body, self._rules.output)
        return None if why is None else _no(403, why)

    def _answer(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """What is answered here: refusals, results, and the address that a token leads to."""
        rules, path = self._rules, scope["path"]
        if rules.loopback and _host(headers.get("host", "")) not in _LOOPBACK:
            return _no(421, "this page is for this machine alone; use http://127.0.0.1")
        if refused := self._stranger(scope, headers):
            return refused
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _no(405, "no such thing can be done here")
        origin = headers.get("origin", f"http://{headers.get('host', '')}")
        if scope["method"] == "POST" and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return _no(403, "another page may not do this")
        if path.startswith(_RESULT):
            return self._result(path[len(_RESULT) :], scope)
        if not _OPEN.fullmatch(path) or (".." in path.split("/") and not path.startswith(FILE)):
            return _no(404, "there is nothing here")
        if path.startswith(FILE):
            return self._upload(path[len(FILE) :])
        return self._too_much(path, headers)

    def _stranger(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """The answer to somebody who has not said the password or token."""
        rules = self._rules
        if rules.auth is not None and not _same(_basic(headers), rules.auth):
            return _no(
                401,
                "user and password, please",
                {"www-authenticate": 'Basic realm="lightx2v", charset="UTF-8"'},
            )
        if rules.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _same(given, rules.token) and scope["path"] == "/":
            welcome = RedirectResponse("/", status_code=303)
            welcome.set_cookie(TOKEN, rules.token, httponly=True, samesite="strict")
            return welcome
        if not _same(_cookies(headers).get(TOKEN, ""), rules.token):
            return _no(401, "open the address with its ?token=..., as the terminal printed it")
        return None

    def _result(self, name: str, scope: Scope) -> Response:
        path = served(self._rules.output, name)
        if path is None:
            return _no(404, "no such result")
        download = b"download" in scope["query_string"]
        return FileResponse(
            path, filename=name, content_disposition_type="attachment" if download else "inline"
        )

    def _upload(self, text: str) -> Response | None:
        """Gradio shows a user what was sent; it serves that itself, but only that."""
        if uploaded(self._rules.output, text) is None or uploaded(self._rules.output, unquote(text)) is None:
            return _no(403, "only results are served")
        return None

    def _too_much(self, path: str, headers: Mapping[str, str]) -> Response | None:
        limit = self._rules.upload if path == _UPLOAD else _MOST_SAID
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return _no(400, "a length is a number")
        if int(length) > limit:
            return _no(
                413, f"that is {int(length) / 1e6:.1f} MB, and {limit / 1e6:.3g} MB can be sent at once"
            )
        return None


def token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(18)


def session_of(headers: Mapping[str, str]) -> str:
    """Whose request it is: behind the door every one has a session."""
    return _cookies(headers).get(SESSION, "")


def _no(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status, headers=dict(headers or {}))


def _host(text: str) -> str:
    """The name in a Host header, without its port."""
    text = text.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _basic(headers: Mapping[str, str]) -> str:
    """``user:password`` of a Basic authorization; empty when there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookies(headers: Mapping[str, str]) -> dict[str, str]:
    try:
        return {name: item.value for name, item in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _session(headers: Mapping[str, str]) -> tuple[str, bool]:
    """The session of a browser, and whether it has one already."""
    found = _cookies(headers).get(SESSION, "")
    return (found, True) if re.fullmatch(r"[\w-]{20,64}", found) else (secrets.token_urlsafe(24), False)


def _with_session(headers: list[tuple[bytes, bytes]], session: str) -> list[tuple[bytes, bytes]]:
    """Headers that say the session also where the browser does not know it yet."""
    return [
        *((key, value) for key, value in headers if key != b"cookie"),
        (b"cookie", f"{SESSION}={session}".encode()),
    ]


def _polite(send: Send, session: str | None) -> Send:
    """Answers carry the policy, and a new browser's cookie."""

    async def polite(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = {**_HEADERS}
            if session is not None:
                added["set-cookie"] = (
                    f"{SESSION}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800"
                )
            kept = [(key, value) for key, value in message["headers"] if key.decode().lower() not in _HEADERS]
            message["headers"] = [*kept, *((key.encode(), value.encode()) for key, value in added.items())]
        await send(message)

    return polite


def _limited(receive: Receive, limit: int) -> Receive:
    """A body that is longer than it said, or does not say its length, ends at the limit."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return limited
