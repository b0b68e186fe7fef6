"""A tiny model with what the page can offer, and the page itself in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

#: what an audit hook in the server writes down: every address that it connects to or looks up
WATCHED = """
import os, sys
def watch(event, args):
    if event == "socket.connect":
        where = args[1]
    elif event == "socket.getaddrinfo":
        where = args[0]
    else:
        return
    with open(os.environ["LIGHTX2V_TEST_CONNECTIONS"], "a") as file:
        file.write(repr(where) + "\\n")
sys.addaudithook(watch)
from lightx2v_core.cli import main
main(sys.argv[1:])
"""


def pytest_configure() -> None:
    from lightx2v_core.testing.signals import hear_signals

    hear_signals()


@frozen(kw_only=True)
class Server:
    """A running page."""

    url: str
    output: Path
    model: Path
    log: Path
    connections: Path

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-video model with a LoRA file that fits and one that does not."""
    pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    import torch
    from safetensors.torch import save_file

    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(folder, 0)
    loras = folder / "loras"
    loras.mkdir()
    generator = torch.Generator().manual_seed(1)
    names = [f"diffusion_model.blocks.{block}.self_attn.{part}" for block in (0, 1) for part in "qkv"]
    tensors = {}
    for name in names:
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, 64, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(64, 4, generator=generator)
    save_file(tensors, loras / "swirl.safetensors")
    other = {name.replace("blocks", "layers"): tensor for name, tensor in tensors.items()}
    save_file(other, loras / "other.safetensors")
    return folder


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny image-to-video model."""
    pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-i2v"
    write_tiny(folder, 0, "i2v")
    return folder


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Callable[..., Server]]:
    """Starts pages of the tiny model, ``serve("--auth", "me:secret")``, or of what the page opens on by itself."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str, tiny: bool = True) -> Server:
        folder = tmp_path_factory.mktemp("page")
        log, connections = folder / "log", folder / "connections"
        connections.touch()
        output = folder / "out"
        config = folder / "small.json"
        config.write_text(
            json.dumps({"sampling": {"size": "64x64", "frames": 5, "steps": 4, "guide_scale": 1.0}})
        )
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "LIGHTX2V_TEST_CONNECTIONS": str(connections),
        }
        of = ("--model-path", str(model), "--config", str(config)) if tiny else ()
        command = [sys.executable, "-c", WATCHED, "ui", *of, "--output", str(output), "--port", "0", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=folder)
        running.append(process)
        end = time.monotonic() + 180
        while time.monotonic() < end:
            lines = [line for line in log.read_text().splitlines() if line.startswith("open http")]
            if lines:
                url = lines[0].split()[1]
                return Server(url=url, output=output, model=model, log=log, connections=connections)
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server]) -> Server:
    """The page of the tiny model."""
    return serve("--upload-limit", "3")


@pytest.fixture(scope="session")
def record() -> Callable[[Server], list[dict[str, Any]]]:
    """The run records in the output folder, oldest first."""

    def read(server: Server) -> list[dict[str, Any]]:
        files = sorted(server.output.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(file.read_text()) for file in files]

    return read
