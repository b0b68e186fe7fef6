"""Model paths as people have them: copied disks, checkouts of git-lfs, the hub cache, with extra and with missing
files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
tiny = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")

from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import PluginSet, load_plugins  # noqa: E402
from lightx2v_core.errors import CheckpointError, RequestError  # noqa: E402
from lightx2v_core.inspection.inspect import inspect  # noqa: E402
from lightx2v_core.plan.plan import Plan  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402

SIDECAR = b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(60)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 4096\n" % (b"0" * 64)
TOKENIZER = "google/umt5-xxl/tokenizer.json"
NETWORK = "diffusion_pytorch_model-00001-of-00002.safetensors"
REPOSITORY = "models--Wan-AI--Wan2.1-T2V-1.3B"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places") / "model"
    tiny.write_tiny(folder, 1)
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


@lru_cache
def plugins() -> PluginSet:
    return load_plugins(only=["wan21"], environ={})


def planned(folder: Path | str, **config: Any) -> Plan:
    values = {"model_path": str(folder), "device": "cpu", "prompt": "x", **config}
    return resolve(load_config(values), plugins()).plan


def refusal(folder: Path | str, **config: Any) -> str:
    with pytest.raises(RequestError) as caught:
        planned(folder, **config)
    return str(caught.value)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_systems_leave_beside_files_is_no_weight(model: Path) -> None:
    before = planned(model)
    for file in files_of(model):
        (file.parent / f"._{file.name}").write_bytes(SIDECAR)
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        ".hidden.safetensors",
        "._model-00001-of-00002.safetensors",
    ):
        (model / name).write_bytes(b"junk")
    (model / "__MACOSX").mkdir()
    (model / "__MACOSX/._model.safetensors").write_bytes(SIDECAR)
    assert planned(model) == before
    report = inspect(model, plugins())
    assert report.runnable
    assert not report.problems


def test_the_file_that_macos_keeps_is_named_when_it_is_asked_for(model: Path) -> None:
    sidecar = model / "._Wan2.1_VAE.pth"
    sidecar.write_bytes(SIDECAR)
    message = refusal(model, components={"vae": {"path": str(sidecar)}})
    assert "is an AppleDouble file of macOS, not the file itself; use Wan2.1_VAE.pth" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (TOKENIZER, POINTER, "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull"),
        (TOKENIZER, b"", "is empty"),
        (TOKENIZER, b"<!DOCTYPE html><html>", "is a web page that a server sent instead of the file"),
        (TOKENIZER, b"\x80\x02}q", "is not a JSON object"),
        (NETWORK, POINTER, "is a git-lfs pointer"),
        (NETWORK, b"<html>Access denied", "is a web page that a server sent"),
        ("Wan2.1_VAE.pth", POINTER, "is a git-lfs pointer"),
        ("config.json", POINTER, "is a git-lfs pointer"),
        ("diffusion_pytorch_model.safetensors.index.json", POINTER, "is a git-lfs pointer"),
    ],
)
def test_what_only_stands_for_a_file_is_named_by_the_plan(
    model: Path, name: str, content: bytes, words: str
) -> None:
    (model / name).write_bytes(content)
    message = refusal(model)
    assert words in message
    assert Path(name).name in message


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(Path("../../blobs") / ("0" * 64))


def test_links_that_all_lead_nowhere_are_one_message(model: Path) -> None:
    count = len(files_of(model))
    for file in files_of(model):
        dangling(file)
    message = refusal(model)
    assert (
        f"{count} of its files are links to files that do not exist, such as Wan2.1_VAE.pth -> ../../blobs/0"
        in message
    )
    assert "\n" not in message
    report = inspect(model, plugins())
    assert [*report.problems, *report.obstacles] == [message]


@pytest.mark.parametrize("name", [TOKENIZER, NETWORK, "Wan2.1_VAE.pth", "config.json"])
def test_one_link_that_leads_nowhere_is_named(model: Path, name: str) -> None:
    dangling(model / name)
    message = refusal(model)
    assert "blobs/0" in message
    assert Path(name).name in message


def test_a_link_that_nothing_needs_does_no_harm(model: Path) -> None:
    (model / "README.md").symlink_to("nowhere")
    assert planned(model).variant.startswith("wan2.1-t2v")


def test_a_path_that_is_a_link_that_leads_nowhere(model: Path) -> None:
    (model / "other.pth").symlink_to("nowhere.pth")
    assert "is a link to nowhere.pth, which does not exist" in refusal(
        model, components={"vae": {"path": str(model / "other.pth")}}
    )


@pytest.fixture
def hub(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub with one repository, as the library lays it out."""
    hub = tmp_path / "hf" / "hub"
    blobs, snapshot = hub / REPOSITORY / "blobs", hub / REPOSITORY / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    for number, file in enumerate(files_of(original)):
        shutil.copy(file, blobs / f"{number:064d}")
        link = snapshot / file.relative_to(original)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / f"{number:064d}", link.parent))
    (hub / REPOSITORY / "refs").mkdir()
    (hub / REPOSITORY / "refs/main").write_text("a" * 40)
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.mark.parametrize(
    "path",
    [REPOSITORY, f"{REPOSITORY}/snapshots", f"{REPOSITORY}/blobs", f"{REPOSITORY}/snapshots/{'a' * 40}"],
)
def test_any_folder_of_a_cached_repository_is_its_snapshot(hub: Path, path: str) -> None:
    plan = planned(hub / path)
    assert plan.model_path == str(hub / REPOSITORY / "snapshots" / ("a" * 40))
    assert inspect(hub / path, plugins()).runnable


@pytest.mark.parametrize(
    "name", ["Wan-AI/Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B/", f"Wan-AI/Wan2.1-T2V-1.3B@{'a' * 40}"]
)
def test_the_name_of_a_cached_repository_is_its_snapshot(hub: Path, name: str) -> None:
    plan = planned(name)
    assert plan.model_path.startswith(str(hub))
    assert [note for note in plan.notes if note.startswith(f"{name} is {hub}") and "cache" in note]
    vae = planned(name, components={"vae": {"path": "Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth"}})
    assert vae.model_path == plan.model_path


@pytest.mark.parametrize(
    ("variable", "place"),
    [("HF_HUB_CACHE", "cache"), ("HUGGINGFACE_HUB_CACHE", "cache"), ("XDG_CACHE_HOME", "x")],
)
def test_the_cache_lies_where_the_library_would_look(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, place: str
) -> None:
    there = tmp_path / place if variable != "XDG_CACHE_HOME" else tmp_path / place / "huggingface" / "hub"
    there.parent.mkdir(exist_ok=True, parents=True)
    shutil.move(hub, there)
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / place))
    assert planned("Wan-AI/Wan2.1-T2V-1.3B").model_path.startswith(str(there))


def test_a_folder_that_is_there_wins(hub: Path, original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "Wan-AI/Wan2.1-T2V-1.3B")
    assert planned("Wan-AI/Wan2.1-T2V-1.3B").model_path == "Wan-AI/Wan2.1-T2V-1.3B"


def without_main(repository: Path) -> None:
    shutil.rmtree(repository / "refs")


def second(repository: Path) -> None:
    (repository / "snapshots" / ("b" * 40)).mkdir()


def lost(repository: Path) -> None:
    (repository / "refs/main").write_text("c" * 40)
    second(repository)


def none(repository: Path) -> None:
    shutil.rmtree(repository / "snapshots")
    (repository / "snapshots").mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [(without_main, ""), (second, ""), (lost, "2 snapshots and none of main"), (none, "no snapshot")],
)
def test_which_snapshot(hub: Path, change: Callable[[Path], None], words: str) -> None:
    change(hub / REPOSITORY)
    if not words:
        assert planned(hub / REPOSITORY).model_path.endswith("a" * 40)
        return
    assert words in refusal(hub / REPOSITORY)
    assert words in refusal("Wan-AI/Wan2.1-T2V-1.3B")


def test_what_the_cache_has_not_is_named_with_the_command_that_brings_it(hub: Path) -> None:
    message = refusal("Wan-AI/Wan2.1-T2V-14B")
    assert str(hub) in message
    assert "lightx2v-core download Wan-AI/Wan2.1-T2V-14B --to models/Wan2.1-T2V-14B" in message
    assert "use one of them: Wan-AI/Wan2.1-T2V-1.3B" in refusal(hub)
    assert "leaves the repository" in refusal("Wan-AI/Wan2.1-T2V-1.3B/../../x")


def test_a_repository_keeps_its_name_in_the_cache(tmp_path: Path) -> None:
    from lightx2v_core.spec.recognition import CheckpointFacts

    cached = tmp_path / "models--Wan-AI--Wan2.1-I2V-14B-480P" / "snapshots" / "abc"
    assert CheckpointFacts(folder=cached, config={}, headers={}).name == "Wan2.1-I2V-14B-480P"
    assert CheckpointFacts(folder=tmp_path / "snapshots" / "abc", config={}, headers={}).name == "abc"


def test_a_damaged_configuration_is_said_once(model: Path) -> None:
    (model / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        planned(model)


def test_all_that_is_missing_comes_with_one_command(model: Path) -> None:
    (model / TOKENIZER).unlink()
    (model / "Wan2.1_VAE.pth").unlink()
    message = refusal(model)
    command = f"lightx2v-core download wan2.1-t2v-1.3b {TOKENIZER} Wan2.1_VAE.pth --to {model}"
    assert f"download the missing files with: {command}" in message


def test_a_command_names_the_model_that_the_folder_is_called_after(model: Path) -> None:
    folder = model.rename(model.parent / "Wan2.1-I2V-14B-720P")
    for file in folder.glob("diffusion_pytorch_model*"):
        file.unlink()
    assert f"lightx2v-core download wan2.1-i2v-14b-720p --to {folder}" in refusal(folder)
    other = folder.rename(folder.parent / "mine")
    assert f"lightx2v-core download NAME --to {other}" in refusal(other)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("distill_int8", "--set components.dit.precision=int8 --set components.dit.distilled=true"),
        ("fp8", "--set components.dit.precision=fp8"),
        ("transformer", ""),
        ("high_noise_model", ""),
    ],
)
def test_a_folder_of_a_model_is_not_the_model(model: Path, name: str, words: str) -> None:
    inside = model / name
    inside.mkdir()
    for file in [*model.glob("diffusion_pytorch_model*"), model / "config.json"]:
        file.rename(inside / file.name)
    message = refusal(inside)
    assert f"use the one above, --model-path {model}" in message
    assert words in message
