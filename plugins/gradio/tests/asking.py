"""Requests to the page over HTTP."""

from __future__ import annotations

import http.client
from typing import Any, TypeAlias

#: see conftest.py
Server: TypeAlias = Any
Answer = tuple[int, dict[str, str], bytes]


def ask(
    server: Server,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request, with the path exactly as it is written."""
    connection = http.client.HTTPConnection(server.host, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=bool(headers and "Host" in headers))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer_headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, answer_headers, answer.read()
    finally:
        connection.close()


def multipart(name: str, data: bytes) -> tuple[dict[str, str], bytes]:
    """A file as a browser sends it."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    head += "Content-Type: image/png\r\n\r\n"
    return {"Content-Type": "multipart/form-data; boundary=edge"}, head.encode() + data + b"\r\n--edge--\r\n"
