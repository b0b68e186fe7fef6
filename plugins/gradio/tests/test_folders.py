"""Model folders that a user opens on the page, over HTTP: many at once, and broken ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from .asking import Server, ask

pytestmark = pytest.mark.load

Open: TypeAlias = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def open_folder(server: Server) -> Open:
    """Opens a folder on the page, as a tab does; the answer as text."""
    config = json.loads(ask(server, "/config")[2])
    listener = next(entry for entry in config["dependencies"] if entry["api_name"] == "_open")

    def opened(folder: str) -> tuple[int, str]:
        said = {"data": [None, folder], "fn_index": listener["id"], "session_hash": folder[-40:]}
        status, _, answer = ask(
            server,
            "/gradio_api/run/predict",
            method="POST",
            headers={"Content-Type": "application/json"},
            body=json.dumps(said).encode(),
        )
        return status, json.dumps(json.loads(answer), ensure_ascii=False)

    return opened


def test_fifty_folders_at_once_are_all_answered(server: Server, open_folder: Open, tmp_path: Path) -> None:
    """Those beyond the limit are refused at once; the page answers meanwhile."""
    logged = len(server.log.read_text())
    for number in range(25):
        (tmp_path / f"model-{number}").symlink_to(server.model, target_is_directory=True)
    folders = [str(tmp_path / f"model-{number % 25}") for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(open_folder, folder) for folder in folders]
        status, _, _ = ask(server, "/config")
        assert status == 200
        results = [answer.result() for answer in answers]
    assert {status for status, _ in results} == {200}
    opened = [text for _, text in results if "being inspected" not in text and "took longer than" not in text]
    assert all("wan2.1" in text for text in opened)
    assert len(opened) < 50, "some were refused for now"
    end = time.monotonic() + 300  # the machine may be busy
    while "wan2.1" not in (text := open_folder(folders[-1])[1]) and time.monotonic() < end:
        time.sleep(1)
    assert "wan2.1" in text, "and they may"
    assert "Traceback" not in server.log.read_text()[logged:]


@pytest.mark.parametrize("kind", ["link", "loop", "closed", "nul", "file", "proc", "surrogate"])
def test_a_folder_that_cannot_be_looked_at_is_one_message(
    server: Server, open_folder: Open, tmp_path: Path, kind: str
) -> None:
    logged = len(server.log.read_text())
    folder = tmp_path / "folder"
    folder.mkdir()
    named = str(folder)
    if kind == "link":
        (folder / "x.safetensors").symlink_to("a" * 300)
    elif kind == "loop":
        (folder / "x.safetensors").symlink_to(folder / "x.safetensors")
    elif kind == "closed":
        folder.chmod(0)
    elif kind == "nul":
        named += "\0"
    elif kind == "file":
        named += "/file"
        Path(named).write_bytes(b"\xff" * 9)
    elif kind == "proc":
        named = "/proc/self"
    elif kind == "surrogate":
        named += "\ud800"
    status, text = open_folder(named)
    folder.chmod(0o700)
    assert status == 200, text
    assert text.count("role=") >= 1, text
    assert "Traceback" not in server.log.read_text()[logged:]
