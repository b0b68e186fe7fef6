"""The gateway in front of the page: access, language, allowed addresses, and limits on uploads and downloads.

An ASGI application around another one. Gradio has many more addresses than the page needs; the others are closed.
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

from lightx2v_gradio.language import (
    DEFAULT,
    LANGUAGE,
    Send,
    choose_language,
    path_prefix,
    split_path,
    with_language,
)
from lightx2v_gradio.results import result_path, upload_path
from lightx2v_gradio.texts import TEXTS, Text, message
from lightx2v_gradio.uploads import FILE_PREFIX, AsgiMessage, Receive, read_body, refusal_reason, replay_body

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
#: an answer of the gateway, in a language
Answer = Callable[[str], Response]

#: the cookies of a browser: its session, which owns jobs, and the token that it presented
SESSION, TOKEN = "lightx2v_session", "lightx2v_token"
#: names of the loopback interface
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: the addresses that the page needs
_ALLOWED_PATHS = re.compile(
    r"/(?:|config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:assets|static|svelte)/[\w./@~+-]+"
    r"|gradio_api/(?:queue/join|queue/data|heartbeat/\w+|upload|upload_progress|startup-events|theme\.css|reset/?|cancel"
    r"|info/?|run/\w+|custom_component/[\w./-]+|file=.+))"
)
_UPLOAD_PATH, _RESULT_PREFIX = "/gradio_api/upload", "/results/"
#: addresses that receive the values of components, with files among them
_MESSAGE_PATHS = re.compile(r"/gradio_api/(?:run/\w+|queue/join)")
#: no loading, showing or calling of other hosts, and no framing by other pages
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
#: largest body of a request other than an upload, in bytes
_MESSAGE_LIMIT = 4 * 2**20


@frozen(kw_only=True)
class AccessRules:
    """Access to the page and the size of uploads."""

    #: the folder of results, the only one that is served
    output: Path
    #: True for a server that only this machine can reach
    loopback: bool
    #: ``USER:PASSWORD``, entered in a dialog of the browser
    auth: str | None = None
    #: presented once in the address (``?token=``), then kept in a cookie
    token: str | None = None
    #: largest upload in bytes
    upload_limit: int = 512 * 2**20


class Gateway:
    """An ASGI application that passes allowed requests on to another one."""

    def __init__(self, app: App, rules: AccessRules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # Gradio's page needs no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        language = _language(headers)
        session, has_cookie = _session(headers)
        send = _with_security_headers(send, None if has_cookie else session)
        response = self._own_response(scope, headers)
        if response is not None:
            await response(language)(scope, receive, send)
            return
        if scope["path"] == "/":
            send = with_language(send, TEXTS[language])
            scope["path"] = f"{path_prefix(language)}/"
            scope["raw_path"] = scope["path"].encode()
        scope["headers"] = _set_session_cookie(scope["headers"], session)
        path = split_path(scope["path"])[1]
        limited = _limit_body(receive, self._rules.upload_limit if path == _UPLOAD_PATH else _MESSAGE_LIMIT)
        if _MESSAGE_PATHS.fullmatch(path):
            body = await read_body(limited)
            if refusal := self._body_refusal(body):
                await refusal(language)(scope, receive, send)
                return
            limited = replay_body(body or b"", limited)
        await self._app(scope, limited, send)

    def _body_refusal(self, body: bytes | None) -> Answer | None:
        """Refuse a request that names a file which was not uploaded, or that did not arrive completely."""
        if body is None:
            return _refusal(413, message("refusal.broken"))
        reason = refusal_reason(body, self._rules.output)
        return None if reason is None else _refusal(403, reason)

    def _own_response(self, scope: Scope, headers: Mapping[str, str]) -> Answer | None:
        """Build an answer without Gradio: a refusal, a result, a redirect; None to pass a request on."""
        rules, (language, path) = self._rules, split_path(scope["path"])
        if rules.loopback and _host_name(headers.get("host", "")) not in _LOOPBACK:
            return _refusal(421, message("refusal.host"))
        if response := self._login_response(scope, headers):
            return response
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refusal(405, message("refusal.method"))
        origin = headers.get("origin", f"http://{headers.get('host', '')}")
        if scope["method"] == "POST" and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return _refusal(403, message("refusal.origin"))
        if language != DEFAULT and path == "/":  # the address of the page is the same in every language
            return lambda _language: RedirectResponse("/", status_code=303)
        if path.startswith(_RESULT_PREFIX):
            return self._result_response(path[len(_RESULT_PREFIX) :], scope)
        if not _ALLOWED_PATHS.fullmatch(path) or (
            ".." in path.split("/") and not path.startswith(FILE_PREFIX)
        ):
            return _refusal(404, message("refusal.path"))
        if path.startswith(FILE_PREFIX):
            return self._upload_refusal(path[len(FILE_PREFIX) :])
        return self._size_refusal(path, headers)

    def _login_response(self, scope: Scope, headers: Mapping[str, str]) -> Answer | None:
        """Answer a request without password or token; None for an authorized one."""
        rules = self._rules
        if rules.auth is not None and not _equal_secrets(_basic_credentials(headers), rules.auth):
            return _refusal(
                401,
                message("refusal.login"),
                {"www-authenticate": 'Basic realm="lightx2v", charset="UTF-8"'},
            )
        if rules.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _equal_secrets(given, rules.token) and scope["path"] == "/":
            redirect = RedirectResponse("/", status_code=303)
            redirect.set_cookie(TOKEN, rules.token, httponly=True, samesite="strict")
            return lambda _language: redirect
        if not _equal_secrets(_cookies(headers).get(TOKEN, ""), rules.token):
            return _refusal(401, message("refusal.token"))
        return None

    def _result_response(self, name: str, scope: Scope) -> Answer:
        path = result_path(self._rules.output, name)
        if path is None:
            return _refusal(404, message("refusal.result"))
        download = b"download" in scope["query_string"]
        return lambda _language: FileResponse(
            path, filename=name, content_disposition_type="attachment" if download else "inline"
        )

    def _upload_refusal(self, text: str) -> Answer | None:
        """Refuse any file but an upload; Gradio serves those itself."""
        if (
            upload_path(self._rules.output, text) is None
            or upload_path(self._rules.output, unquote(text)) is None
        ):
            return _refusal(403, message("refusal.upload"))
        return None

    def _size_refusal(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        limit = self._rules.upload_limit if path == _UPLOAD_PATH else _MESSAGE_LIMIT
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return _refusal(400, message("refusal.length"))
        if int(length) > limit:
            size = message("refusal.size", size=f"{int(length) / 1e6:.1f}", limit=f"{limit / 1e6:.3g}")
            return _refusal(413, size)
        return None


def new_token() -> str:
    """Draw a token that cannot be guessed."""
    return secrets.token_urlsafe(18)


def session_id(headers: Mapping[str, str]) -> str:
    """Return the session of a request; the gateway gives every request one."""
    return _cookies(headers).get(SESSION, "")


def _refusal(status: int, reason: Text, headers: Mapping[str, str] | None = None) -> Answer:
    def answer(language: str) -> Response:
        text = TEXTS[language].show(reason)
        return PlainTextResponse(f"{text}\n", status_code=status, headers=dict(headers or {}))

    return answer


def _language(headers: Mapping[str, str]) -> str:
    """Return the language of a browser."""
    return choose_language(_cookies(headers).get(LANGUAGE, ""), headers.get("accept-language", ""))


def _host_name(text: str) -> str:
    """Return the name in a Host header, without its port."""
    text = text.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _equal_secrets(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _basic_credentials(headers: Mapping[str, str]) -> str:
    """Return ``user:password`` of a Basic authorization; empty for other requests."""
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
    """Return the session of a browser, and False if it was created now."""
    session = _cookies(headers).get(SESSION, "")
    return (session, True) if re.fullmatch(r"[\w-]{20,64}", session) else (secrets.token_urlsafe(24), False)


def _set_session_cookie(headers: list[tuple[bytes, bytes]], session: str) -> list[tuple[bytes, bytes]]:
    """Add the session to request headers, also before the browser has its cookie."""
    return [
        *((key, value) for key, value in headers if key != b"cookie"),
        (b"cookie", f"{SESSION}={session}".encode()),
    ]


def _with_security_headers(send: Send, session: str | None) -> Send:
    """Add the policy to answers, and the cookie for a new browser."""

    async def send_with_headers(start: AsgiMessage) -> None:
        if start["type"] == "http.response.start":
            added = {**_SECURITY_HEADERS}
            if session is not None:
                added["set-cookie"] = (
                    f"{SESSION}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800"
                )
            kept = [
                (key, value)
                for key, value in start["headers"]
                if key.decode().lower() not in _SECURITY_HEADERS
            ]
            start["headers"] = [*kept, *((key.encode(), value.encode()) for key, value in added.items())]
        await send(start)

    return send_with_headers


def _limit_body(receive: Receive, limit: int) -> Receive:
    """End a body at the limit, also one that is longer than its Content-Length or that has none."""
    seen = 0

    async def limited() -> AsgiMessage:
        nonlocal seen
        part = await receive()
        seen += len(part.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else part

    return limited
