"""A local model hub that answers the requests of ``huggingface_hub`` from given files.

    with serve_hub({"owner/name": {"config.json": b"{}", "model.safetensors": path}}) as hub:
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url})
        assert hub.sent["owner/name/config.json"] == 2

It implements the listing API (with pages), answers HEAD and GET of files with ETag, commit and size, resumes
(``Range``), and redirects weight files to other addresses, as the real hub does. Fields of ``Hub`` enable faults.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from attrs import define, field, frozen

#: suffixes of files that a hub keeps outside git, identified by SHA-256
LARGE = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".gguf")
_PAGE = 50
_PIECE = 1 << 16

Content = bytes | Path


@frozen(kw_only=True)
class Asked:
    """A received request: ``GET`` or ``HEAD``, its path, the first byte of its range, and its token."""

    method: str
    path: str
    start: int
    token: str | None


@define
class Hub:
    """A running hub. Changes of its fields apply to the next request."""

    url: str
    repos: dict[str, dict[str, Content]]
    #: gated repository -> required token; requests with other tokens or none are rejected
    gated: dict[str, str] = field(factory=dict)
    #: ``repo/path`` or repository -> HTTP status of its responses
    broken: dict[str, int] = field(factory=dict)
    #: ``repo/path`` -> bytes after which the connection is closed, one entry per request; complete after the last entry
    dropped: dict[str, list[int]] = field(factory=dict)
    #: ``repo/path`` -> content sent in place of the listed one
    forged: dict[str, bytes] = field(factory=dict)
    #: seconds to sleep after each chunk of 64 KiB
    pause: float = 0.0
    #: whether range requests are supported; otherwise files are always sent from the start
    ranges: bool = True
    #: answer every request with an HTML page, like the login page of a network
    login_page: bool = False
    #: all requests received so far
    asked: list[Asked] = field(factory=list)
    #: ``repo/path`` -> bytes of content sent
    sent: dict[str, int] = field(factory=lambda: defaultdict(int))

    def commit(self, repo: str) -> str:
        """Return the current commit, which changes with the files."""
        state = [(path, _etag(path, content)) for path, content in sorted(self.repos[repo].items())]
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()

    def requests(self, repo: str, path: str) -> list[Asked]:
        """List the GET requests for the content of one file."""
        return [request for request in self.asked if request.method == "GET" and request.path.endswith(f"/{path}")
                and f"/{repo}/" in request.path and not request.path.startswith("/api/")]  # fmt: skip


@contextmanager
def serve_hub(repos: Mapping[str, Mapping[str, Content]]) -> Iterator[Hub]:
    """Serve repositories (name -> path -> content or file) at ``hub.url`` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(
        f"http://127.0.0.1:{server.server_address[1]}", {repo: dict(files) for repo, files in repos.items()}
    )
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def folder_files(folder: Path) -> dict[str, Path]:
    """List the files of a folder as a repository: path inside it -> file."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _pieces(content: Content, start: int = 0) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for place in range(start, len(content), _PIECE):
            yield content[place : place + _PIECE]
        return
    with content.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            yield piece


def _sha256(content: Content) -> str:
    hashing = hashlib.sha256()
    for piece in _pieces(content):
        hashing.update(piece)
    return hashing.hexdigest()


def _blob(content: Content) -> str:
    hashing = hashlib.sha1(f"blob {_size(content)}\0".encode())
    for piece in _pieces(content):
        hashing.update(piece)
    return hashing.hexdigest()


def _etag(path: str, content: Content) -> str:
    return _sha256(content) if path.endswith(LARGE) else _blob(content)


class _Handler(BaseHTTPRequestHandler):
    """The handler of one request. Method names are those of the standard library."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: requests are recorded in ``hub.asked``."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(method=self.command, path=path, start=self._start(), token=token))
        if self.hub.login_page:
            self._send(
                200, b"<html>Please log in to this network</html>", {"Content-Type": "text/html"}, body
            )
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
            self._api(match[1], match[2] or "revision", match[3] or "main", token, query, body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3], token, body)
        elif match := re.fullmatch(r"/stored/([^/]+/[^/]+)/(.+)", path):
            self._content(match[1], match[2], body)
        else:
            self._refuse(404, "EntryNotFound", body)

    def _start(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(match[1]) if match and self.hub.ranges else 0

    def _named(self, repo: str) -> str | None:
        """Find a repository by name, ignoring case, as the real hub does."""
        return next((name for name in self.hub.repos if name.casefold() == repo.casefold()), None)

    def _allowed(self, repo: str, revision: str, token: str | None, body: bool) -> str | None:
        """Return the repository if it may be read; otherwise send an error and return ``None``."""
        name = self._named(repo)
        if name is None:
            self._refuse(404 if token else 401, "RepoNotFound", body)
        elif name in self.hub.broken:
            self._refuse(self.hub.broken[name], None, body)
        elif name in self.hub.gated and token != self.hub.gated[name]:
            self._refuse(403 if token else 401, "GatedRepo", body)
        elif revision not in ("main", self.hub.commit(name)):
            self._refuse(404, "RevisionNotFound", body)
        else:
            return name
        return None

    def _api(
        self, repo: str, what: str, revision: str, token: str | None, query: dict[str, list[str]], body: bool
    ) -> None:
        # as on the real hub, anybody may list the files of a gated repository
        name = self._allowed(repo, revision, self.hub.gated.get(repo, token), body)
        if name is None:
            return
        if what == "revision":
            siblings = [{"rfilename": path} for path in self.hub.repos[name]]
            about = {"_id": "0", "id": name, "modelId": name, "sha": self.hub.commit(name), "siblings": siblings,
                     "private": False, "gated": name in self.hub.gated, "tags": [], "downloads": 0,
                     "likes": 0}  # fmt: skip
            self._json(about, {}, body)
            return
        files = sorted(self.hub.repos[name].items())
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if first + _PAGE < len(files):
            address = f"{self.hub.url}/api/models/{quote(name)}/tree/{revision}?recursive=True&cursor={first + _PAGE}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._json([_listed(path, content) for path, content in files[first : first + _PAGE]], headers, body)

    def _file(self, repo: str, revision: str, path: str, token: str | None, body: bool) -> None:
        name = self._allowed(repo, revision, token, body)
        if name is None:
            return
        if path not in self.hub.repos[name]:
            self._refuse(404, "EntryNotFound", body)
            return
        if not path.endswith(LARGE):
            self._content(name, path, body)
            return
        content = self.hub.repos[name][path]
        headers = {
            **self._about(name),
            "X-Linked-Etag": f'"{_sha256(content)}"',
            "X-Linked-Size": str(_size(content)),
            # a different host name: clients must not send their token there
            "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/stored/{name}/{quote(path)}",
        }
        self._send(302, b"", headers, body)

    def _content(self, name: str, path: str, body: bool) -> None:
        key = f"{name}/{path}"
        if key in self.hub.broken:
            self._refuse(self.hub.broken[key], None, body)
            return
        content = self.hub.forged.get(key, self.hub.repos[name][path])
        size, start = _size(content), self._start()
        headers = {"ETag": f'"{_etag(path, content)}"', "Accept-Ranges": "bytes", **self._about(name)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if start else 200, {**headers, "Content-Length": str(size - start)})
        if not body:
            return
        limits = self.hub.dropped.get(key)
        limit = limits.pop(0) if limits else None
        for piece in _pieces(content, start):
            sending = piece if limit is None else piece[:limit]
            # counted first: a client that has read the last byte may look before this thread goes further
            self.hub.sent[key] += len(sending)
            try:
                self.wfile.write(sending)
            except OSError:  # the client has disconnected
                self.hub.sent[key] -= len(sending)
                self.close_connection = True
                return
            if limit is not None:
                limit -= len(sending)
                if not limit:
                    self.close_connection = True
                    return
            if self.hub.pause:
                time.sleep(self.hub.pause)

    def _about(self, name: str) -> dict[str, str]:
        return {"X-Repo-Commit": self.hub.commit(name)}

    def _json(self, value: Any, headers: dict[str, str], body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}, body)

    def _refuse(self, status: int, code: str | None, body: bool) -> None:
        headers = {} if code is None else {"X-Error-Code": code}
        self._send(status, json.dumps({"error": code or "trouble"}).encode(), headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self._head(status, {**headers, "Content-Length": str(len(content))})
        if body:
            self.wfile.write(content)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _listed(path: str, content: Content) -> dict[str, Any]:
    """Build the entry of a file in a listing."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": _size(content), "oid": _blob(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": _size(content), "pointerSize": 134}
    return entry
