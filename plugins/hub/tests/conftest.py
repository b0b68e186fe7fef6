"""A plugin that lists repositories, and a local hub that serves them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from lightx2v_core.testing import environment, write_dist
from lightx2v_core.testing.hub import Hub, serve_hub


def pytest_configure() -> None:
    from lightx2v_core.testing.signals import hear_signals

    hear_signals()


#: a third-party plugin: an official repository, single files on top of it, pairs, LoRAs
PLUGIN = """
from lightx2v_core.api import ComponentSpec, ModelSpec, Repository, RepositoryFiles as Files, TaskSpec, hookimpl

OFFICIAL = (
    Files(component="dit", files=("net-*.safetensors", "net.safetensors.index.json"), precision="original"),
    Files(component="config", files=("config.json",)),
    Files(component="text_encoder", files=("text-bf16.pth",), precision="original"),
    Files(component="tokenizer", files=("tok/tokenizer.json",)),
    Files(component="vae", files=("vae.pth",)),
)


def experts(expert):
    return tuple(
        Files(component=expert, files=(f"{expert}_{p}.safetensors", f"{expert}_{p}_[0-9]*.safetensors"), single=True,
              precision=p, folder=f"{expert}_model")
        for p in ("original", "fp8")
    )


REPOSITORIES = (
    Repository(name="acme-small", repo="acme/Small", summary="a small one", kind="official", tasks=("t2v",),
               files=OFFICIAL, companions=("acme-parts",)),
    Repository(name="acme-large", repo="acme/Large", summary="a large one", kind="official", tasks=("t2v", "i2v"),
               files=OFFICIAL, companions=("acme-parts",)),
    Repository(
        name="acme-turbo", repo="acme/Turbo", summary="one file", kind="single-file", tasks=("i2v",), distilled=True,
        files=tuple(Files(component="dit", files=(f"turbo_{p}.safetensors",), single=True, precision=p)
                    for p in ("original", "fp8", "int8")),
        companions=("acme-large",),
    ),
    Repository(
        name="acme-pair", repo="acme/Pair", summary="two experts", kind="single-file", tasks=("t2v",), distilled=True,
        files=(*experts("high_noise"), *experts("low_noise"),
               Files(component="text_encoder", files=("q/text-fp8.pth",), precision="fp8"),
               Files(component="text_encoder", files=("text-bf16.pth",), precision="original"),
               Files(component="vae", files=("vae.pth",))),
    ),
    Repository(name="acme-lora", repo="acme/Loras", summary="a LoRA", kind="lora", tasks=("t2v",), distilled=True,
               files=(Files(component="lora", files=("lora.safetensors",), single=True, folder="loras"),)),
    Repository(name="acme-parts", repo="acme/Parts", summary="parts", kind="part", tasks=("t2v", "i2v"),
               files=(Files(component="tiny_vae", files=("tiny.pth",), optional=True),)),
)
COMPONENTS = tuple(
    ComponentSpec(name=name, summary=name, files=files, group=group, assets=assets)
    for name, files, group, assets in (
        ("dit", ("net-*.safetensors", "*.safetensors"), None, {}),
        ("text_encoder", ("text-bf16.pth",), None, {"tokenizer": "tok/tokenizer.json"}),
        ("vae", ("vae.pth",), None, {}),
        ("high_noise", ("high_noise_model/*.safetensors",), "dit", {}),
        ("low_noise", ("low_noise_model/*.safetensors",), "dit", {}),
    )
)


def no(*_args):
    return "no"


@hookimpl
def lightx2v_models():
    return [ModelSpec(name="acme", summary="Acme", tasks={"t2v": TaskSpec(), "i2v": TaskSpec(required={"image"})},
                      components=COMPONENTS, recognize=no, defaults=no, geometry=no, memory=no, build=no,
                      aliases={"acme_distill": True}, repositories=lambda: REPOSITORIES)]
"""


def content(name: str, size: int) -> bytes:
    """Generate reproducible bytes, different for each name."""
    return random.Random(name).randbytes(size)


def repositories() -> dict[str, dict[str, bytes]]:
    """Return the repositories of the hub: files that runs need, and others."""
    official = {
        "net-00001-of-00002.safetensors": 300_000,
        "net-00002-of-00002.safetensors": 200_000,
        "net.safetensors.index.json": 200,
        "config.json": 20,
        "text-bf16.pth": 100_000,
        "tok/tokenizer.json": 1000,
        "tok/spiece.model": 1000,
        "vae.pth": 50_000,
        "assets/picture.png": 5000,
        "README.md": 100,
    }
    files = {
        "acme/Small": official,
        "acme/Large": official,
        "acme/Turbo": {f"turbo_{name}.safetensors": 400_000 for name in ("original", "fp8", "int8")},
        "acme/Pair": {
            "high_noise_original.safetensors": 90_000, "low_noise_original.safetensors": 90_000,
            "high_noise_fp8.safetensors": 50_000, "low_noise_fp8_1030.safetensors": 50_000,
            "q/text-fp8.pth": 3000, "text-bf16.pth": 6000, "vae.pth": 2000,
        },
        "acme/Loras": {"lora.safetensors": 2000, "other.safetensors": 2000},
        "acme/Parts": {"tiny.pth": 4000, "unused.pth": 4000},
        "stranger/Tune": {
            "models/net-00001-of-00001.safetensors": 4000, "models/config.json": 20, "vae.pth": 2000,
            "samples/a.mp4": 9000,
        },
        "stranger/One": {"my-tune.safetensors": 4000, "README.md": 10},
        "stranger/Many": {"a.safetensors": 4000, "b.safetensors": 10},
    }  # fmt: skip
    return {
        repo: {name: content(f"{repo}/{name}", size) for name, size in names.items()}
        for repo, names in files.items()
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(repositories()) as hub:
        yield hub


@frozen(kw_only=True)
class Done:
    """The result of a command line."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def own_files(root: Path) -> dict[str, int]:
    """Return the complete files of a folder: path -> bytes."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.stat().st_size for path in files if ".cache" not in path.parts
    }


@frozen(kw_only=True)
class Download:
    """Runs ``lightx2v-core download`` in a folder, with the local hub."""

    folder: Path
    env: dict[str, str]

    def __call__(self, *arguments: object, prefix: tuple[str, ...] = (), **variables: str) -> Done:
        done = subprocess.run(
            [*prefix, *self.line(*arguments)],
            cwd=self.folder, env={**self.env, **variables}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(status=done.returncode, out=done.stdout, err=done.stderr)

    def line(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "lightx2v_core", "download", *map(str, arguments)]

    def files(self, folder: str) -> dict[str, int]:
        return own_files(self.folder / folder)


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acme")
    return write_dist(
        folder, "lightx2v-acme", modules={"acme_hub_plugin.py": PLUGIN}, plugins={"acme": "acme_hub_plugin"}
    )


@pytest.fixture
def download(hub: Hub, acme: Path, tmp_path: Path) -> Download:
    kept = ("HF_TOKEN", "HF_HUB", "HUGGING")
    env = environment(acme, LIGHTX2V_PLUGINS="acme,hub", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"))
    env = {name: value for name, value in env.items() if not name.startswith(kept)}
    (tmp_path / "work").mkdir()
    return Download(folder=tmp_path / "work", env=env)


#: starts the command and does not wait for it
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(download: Download) -> Iterator[Start]:
    """Start the command; kill it at the end of the test if it is still running."""
    running = []

    def run(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            download.line(*arguments), cwd=download.folder, env=download.env, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@frozen(kw_only=True)
class Inside:
    """Runs ``lightx2v-core download`` in this process and folder, which is faster for many command lines.

    ``Download`` runs it as a program.
    """

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Done:
        from lightx2v_core.cli import main

        with pytest.raises(SystemExit) as ended:
            main(["download", *map(str, arguments)])
        out, err = self.capture.readouterr()
        assert "Traceback" not in err, err
        return Done(status=int(ended.value.code or 0), out=out, err=err)

    def files(self, folder: str) -> dict[str, int]:
        return own_files(self.folder / folder)


@pytest.fixture
def inside(
    hub: Hub,
    acme: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Inside]:
    from huggingface_hub import constants, utils

    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("LIGHTX2V_PLUGINS", "acme,hub")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # read at import, so changes of the environment come too late
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    handler = signal.getsignal(signal.SIGTERM)
    yield Inside(folder=tmp_path / "inside", capture=capsys)
    signal.signal(signal.SIGTERM, handler)
    if hasattr(utils, "close_session"):
        utils.close_session()


#: the files of a small repository that a run needs, with sizes
SMALL = {
    "net-00001-of-00002.safetensors": 300_000, "net-00002-of-00002.safetensors": 200_000,
    "net.safetensors.index.json": 200, "config.json": 20, "text-bf16.pth": 100_000, "tok/tokenizer.json": 1000,
    "vae.pth": 50_000,
}  # fmt: skip
NET = "net-00001-of-00002.safetensors"


def partials(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.incomplete"))
