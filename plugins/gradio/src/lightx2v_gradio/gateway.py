"""The gateway in front of the page: access, the list of allowed addresses, and what may be sent and fetched.

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

from lightx2v_gradio.results import result_path, upload_path
from lightx2v_gradio.uploads import FILE_PREFIX, Message, Receive, read_body, refusal_reason, replay_body

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: the cookies of a browser: whose jobs it may see, and that it has shown its token
SESSION, TOKEN = "lightx2v_session", "lightx2v_token"
#: names that the loopback interface is called by
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: what the page asks for, and nothing else
_ALLOWED_PATHS = re.compile(
    r"/(?:|config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:assets|static|svelte)/[\w./@~+-]+"
    r"|gradio_api/(?:queue/join|queue/data|heartbeat/\w+|upload|upload_progress|startup-events|theme\.css|reset/?|cancel"
    r"|info/?|run/\w+|custom_component/[\w./-]+|file=.+))"
)
_UPLOAD_PATH, _RESULT_PREFIX = "/gradio_api/upload", "/results/"
#: where values of the page's components arrive, files among them
_MESSAGE_PATHS = re.compile(r"/gradio_api/(?:run/\w+|queue/join)")
#: nothing of another host is loaded, shown or called, and no other page may hold this one
_CONTENT_SECURITY_POLICY = "; ".join(
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
_SECURITY_HEADERS = {
    "content-security-policy": _CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: largest body of anything but an upload
_MESSAGE_LIMIT = 4 * 2**20


@frozen(kw_only=True)
class AccessRules:
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
    upload_limit: int = 512 * 2**20


class Gateway:
    """An ASGI application that lets through to another one what the rules allow."""

    def __init__(self, app: App, rules: AccessRules) -> None:
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
        session, has_cookie = _session(headers)
        send = _with_security_headers(send, None if has_cookie else session)
        response = self._own_response(scope, headers)
        if response is not None:
            await response(scope, receive, send)
            return
        scope["headers"] = _set_session_cookie(scope["headers"], session)
        limited = _limit_body(
            receive, self._rules.upload_limit if scope["path"] == _UPLOAD_PATH else _MESSAGE_LIMIT
        )
        if _MESSAGE_PATHS.fullmatch(scope["path"]):
            body = await read_body(limited)
            if refusal := self._body_refusal(body):
                await refusal(scope, receive, send)
                return
            limited = replay_body(body or b"", limited)
        await self._app(scope, limited, send)

    def _body_refusal(self, body: bytes | None) -> Response | None:
        """The answer to a request that names a file which was not sent, or that did not arrive."""
        if body is None:
            return _refusal(413, "that broke off, or is too much")
        reason = refusal_reason(body, self._rules.output)
        return None if reason is None else _refusal(403, reason)

    def _own_response(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """What is answered here: refusals, results, and the address that a token leads to."""
        rules, path = self._rules, scope["path"]
        if rules.loopback and _host_name(headers.get("host", "")) not in _LOOPBACK:
            return _refusal(421, "this page is for this machine alone; use http://127.0.0.1")
        if response := self._login_response(scope, headers):
            return response
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refusal(405, "no such thing can be done here")
        origin = headers.get("origin", f"http://{headers.get('host', '')}")
        if scope["method"] == "POST" and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return _refusal(403, "another page may not do this")
        if path.startswith(_RESULT_PREFIX):
            return self._result_response(path[len(_RESULT_PREFIX) :], scope)
        if not _ALLOWED_PATHS.fullmatch(path) or (
            ".." in path.split("/") and not path.startswith(FILE_PREFIX)
        ):
            return _refusal(404, "there is nothing here")
        if path.startswith(FILE_PREFIX):
            return self._upload_refusal(path[len(FILE_PREFIX) :])
        return self._size_refusal(path, headers)

    def _login_response(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """The answer to somebody who has not said the password or token."""
        rules = self._rules
        if rules.auth is not None and not _equal_secrets(_basic_credentials(headers), rules.auth):
            return _refusal(
                401,
                "user and password, please",
                {"www-authenticate": 'Basic realm="lightx2v", charset="UTF-8"'},
            )
        if rules.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _equal_secrets(given, rules.token) and scope["path"] == "/":
            redirect = RedirectResponse("/", status_code=303)
            redirect.set_cookie(TOKEN, rules.token, httponly=True, samesite="strict")
            return redirect
        if not _equal_secrets(_cookies(headers).get(TOKEN, ""), rules.token):
            return _refusal(401, "open the address with its ?token=..., as the terminal printed it")
        return None

    def _result_response(self, name: str, scope: Scope) -> Response:
        path = result_path(self._rules.output, name)
        if path is None:
            return _refusal(404, "no such result")
        download = b"download" in scope["query_string"]
        return FileResponse(
            path, filename=name, content_disposition_type="attachment" if download else "inline"
        )

    def _upload_refusal(self, text: str) -> Response | None:
        """Gradio shows a user what was sent; it serves that itself, but only that."""
        if (
            upload_path(self._rules.output, text) is None
            or upload_path(self._rules.output, unquote(text)) is None
        ):
            return _refusal(403, "only results are served")
        return None

    def _size_refusal(self, path: str, headers: Mapping[str, str]) -> Response | None:
        limit = self._rules.upload_limit if path == _UPLOAD_PATH else _MESSAGE_LIMIT
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return _refusal(400, "a length is a number")
        if int(length) > limit:
            return _refusal(
                413, f"that is {int(length) / 1e6:.1f} MB, and {limit / 1e6:.3g} MB can be sent at once"
            )
        return None


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(18)


def session_id(headers: Mapping[str, str]) -> str:
    """The session of a request; behind the gateway every one has one."""
    return _cookies(headers).get(SESSION, "")


def _refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{reason}\n", status_code=status, headers=dict(headers or {}))


def _host_name(text: str) -> str:
    """The name in a Host header, without its port."""
    text = text.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _equal_secrets(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _basic_credentials(headers: Mapping[str, str]) -> str:
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
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _session(headers: Mapping[str, str]) -> tuple[str, bool]:
    """The session of a browser, and whether it has one already."""
    session = _cookies(headers).get(SESSION, "")
    return (session, True) if re.fullmatch(r"[\w-]{20,64}", session) else (secrets.token_urlsafe(24), False)


def _set_session_cookie(headers: list[tuple[bytes, bytes]], session: str) -> list[tuple[bytes, bytes]]:
    """Headers that say the session also where the browser does not know it yet."""
    return [
        *((key, value) for key, value in headers if key != b"cookie"),
        (b"cookie", f"{SESSION}={session}".encode()),
    ]


def _with_security_headers(send: Send, session: str | None) -> Send:
    """Answers carry the policy, and a new browser's cookie."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = {**_SECURITY_HEADERS}
            if session is not None:
                added["set-cookie"] = (
                    f"{SESSION}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800"
                )
            kept = [
                (key, value)
                for key, value in message["headers"]
                if key.decode().lower() not in _SECURITY_HEADERS
            ]
            message["headers"] = [*kept, *((key.encode(), value.encode()) for key, value in added.items())]
        await send(message)

    return send_with_headers


def _limit_body(receive: Receive, limit: int) -> Receive:
    """A body that is longer than it said, or does not say its length, ends at the limit."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return limited
