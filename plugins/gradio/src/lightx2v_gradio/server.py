"""The server of the page: Gradio behind the gateway, on one address."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastapi
import uvicorn

from lightx2v_core.api import RequestError
from lightx2v_gradio.gateway import AccessRules, Gateway
from lightx2v_gradio.language import path_prefix
from lightx2v_gradio.results import UPLOADS

#: Gradio reads these on import: no analytics, no requests to other hosts
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
#: ports to try without --port
_PORTS = range(7860, 7880)


def prepare(output: Path) -> None:
    """Set the environment that Gradio reads on import: no outside contacts, and uploads below the output folder."""
    os.environ.update(QUIET)
    os.environ["GRADIO_TEMP_DIR"] = str(output / UPLOADS)


def is_loopback(host: str) -> bool:
    """Return whether a server on this address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int | None) -> socket.socket:
    """Open a listening socket; without ``port``, on the first free one from 7860 up. ``RequestError`` for an address
    that cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason: OSError | None = None
    for number in _PORTS if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
            return listening
        except OSError as exc:
            listening.close()
            reason = exc
    what = f"{host}:{port}" if port is not None else f"a port from {_PORTS[0]} to {_PORTS[-1]} on {host}"
    why = (reason.strerror or reason) if reason is not None else "no port was tried"
    raise RequestError(f"cannot listen on {what}: {why}; choose another --port or --host")


def address(listening: socket.socket, host: str) -> str:
    """Return the address for a browser."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def application(pages: Mapping[str, Any], rules: AccessRules, style: dict[str, Any]) -> Gateway:
    """Combine the pages, by language, behind the access rules. ``style`` has theme and styles for Gradio's mount."""
    import gradio

    inner = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app: Any = inner
    for language in sorted(pages, key=path_prefix, reverse=True):  # the root last: it matches every path
        app = gradio.mount_gradio_app(
            inner,
            pages[language],
            path=path_prefix(language) or "/",
            footer_links=[],
            run_history=False,
            show_error=True,
            max_file_size=rules.upload_limit,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            allowed_paths=[],
            **style,
        )
    return Gateway(app, rules)


def serve(app: Gateway, listening: socket.socket) -> None:
    """Serve until the process is interrupted; log warnings, not requests."""
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listening])
