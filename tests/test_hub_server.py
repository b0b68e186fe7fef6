"""The hub for tests, asked as a client asks it: with nothing but the core installed."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from lightx2v_core.testing import assert_light_import
from lightx2v_core.testing.hub import Hub, serve_hub

WEIGHTS = bytes(range(256)) * 512


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub({"acme/Small": {"config.json": b"{}", "model.safetensors": WEIGHTS}}) as hub:
        yield hub


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        content: bytes = answer.read()
    return content


def test_it_needs_no_library_of_the_hub() -> None:
    assert_light_import("lightx2v_core.testing.hub", forbidden=["huggingface_hub", "filelock", "torch"])


def test_a_repository_is_listed_with_sizes_and_hashes(hub: Hub) -> None:
    commit = json.loads(get(f"{hub.url}/api/models/acme/Small"))["sha"]
    tree = json.loads(get(f"{hub.url}/api/models/acme/Small/tree/{commit}?recursive=true"))
    sizes = {entry["path"]: entry["size"] for entry in tree}
    assert sizes == {"config.json": 2, "model.safetensors": len(WEIGHTS)}
    (large,) = [entry["lfs"] for entry in tree if "lfs" in entry]
    assert large["oid"] == hashlib.sha256(WEIGHTS).hexdigest()


def test_files_are_sent_whole_or_from_a_byte_on_and_counted(hub: Hub) -> None:
    url = f"{hub.url}/acme/Small/resolve/main/model.safetensors"
    assert get(url) == WEIGHTS
    assert get(url, Range="bytes=1000-") == WEIGHTS[1000:]
    assert hub.sent["acme/Small/model.safetensors"] == 2 * len(WEIGHTS) - 1000
    assert [asked.start for asked in hub.asked if asked.path.startswith("/stored/")] == [0, 1000]


def test_its_faults_are_switched_on(hub: Hub) -> None:
    url = f"{hub.url}/acme/Small/resolve/main/config.json"
    hub.broken["acme/Small/config.json"] = 503
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(url)
    del hub.broken["acme/Small/config.json"]
    hub.gated["acme/Small"] = "a token"
    with pytest.raises(urllib.error.HTTPError, match="401|403"):
        get(url)
    assert get(url, Authorization="Bearer a token") == b"{}"
