"""Checkpoints that plugins provide: names in paths, their settings, and paths that are not theirs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from lightx2v_core.api import CheckpointSpec
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, RequestError
from lightx2v_core.inspection.inspect import inspect
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.testing import plugin_set

SETTINGS = {
    "sampling": {"size": "64x48", "frames": 9, "steps": 3},
    "components": {"vae": {"path": "tiny/Wan2.1_VAE.pth"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("embedded") / "files"
    (model,) = (item.spec for item in load_plugins().provided("model") if item.spec.name == "wan2.1")
    model.write_tiny(where, 0)
    return where


@pytest.fixture
def plugins(folder: Path) -> PluginSet:
    load_plugins()
    spec = CheckpointSpec(name="tiny", summary="a tiny one", folder=lambda: folder, settings=SETTINGS)
    return plugin_set(spec, wan21=sys.modules["lightx2v_wan21.plugin"])


def planned(plugins: PluginSet, **said: object):
    values = [
        Value(path=tuple(key.split("__")), value=value, origin=f"--{key}") for key, value in said.items()
    ]
    return resolve(load_config({"prompt": "a fox"}, values), plugins).plan


def test_a_name_is_a_folder_with_settings(plugins, folder):
    plan = planned(plugins, model_path="tiny", sampling__steps=7)
    assert plan.model_path == str(folder)
    assert (plan.request.width, plan.request.height, plan.request.frames, plan.request.steps) == (
        64,
        48,
        9,
        7,
    )
    assert plan.origins["frames"] == "checkpoint tiny"
    assert plan.origins["steps"] == "--sampling__steps"
    assert any("a tiny one" in note for note in plan.notes)
    (vae,) = (item for item in plan.components if item.name == "vae")
    assert str(folder / "Wan2.1_VAE.pth") in str(vae.files)


def test_a_look_at_a_name_knows_what_the_checkpoint_brings(folder, tmp_path):
    network = tmp_path / "network"
    network.mkdir()
    for file in (*folder.glob("diffusion_pytorch_model*"), folder / "config.json"):
        shutil.copy(file, network)
    parts = {
        "text_encoder": {
            "path": "tiny/models_t5_umt5-xxl-enc-bf16.pth", "assets": {"tokenizer": "tiny/google/umt5-xxl"},
        },
        "vae": {"path": "tiny/Wan2.1_VAE.pth"},
    }  # fmt: skip
    alone = CheckpointSpec(
        name="alone", summary="a network", folder=lambda: network, settings={"components": parts}
    )
    whole = CheckpointSpec(name="tiny", summary="a tiny one", folder=lambda: folder)
    plugins = plugin_set(alone, whole, wan21=sys.modules["lightx2v_wan21.plugin"])
    found = inspect("alone", plugins)
    assert not found.obstacles
    (run,) = found.runnable
    assert run.command == "lightx2v-core run --model-path alone --prompt TEXT --output out.mp4"
    assert not inspect(network, plugins).runnable, "the folder itself lacks the encoder"


def test_a_folder_of_that_name_wins(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(CheckpointError, match="is empty"):
        planned(plugins, model_path="tiny")


def test_a_part_of_it_brings_no_settings(plugins, folder):
    registry = Registry(plugins)
    assert place_of("tiny/google", registry) == str(folder / "google")
    with pytest.raises(RequestError, match=r"tiny/nothing|nothing"):
        inspect("tiny/nothing", plugins)


@pytest.mark.parametrize("path", ["tiny/../secret", "tiny/google/../../secret"])
def test_no_path_leaves_it(plugins, path):
    with pytest.raises(CheckpointError, match="leaves the folder"):
        place_of(path, Registry(plugins))


@pytest.mark.parametrize("path", ["./tiny", "/tiny", "~/tiny", "other/tiny", "tiny.safetensors"])
def test_other_paths_are_left_alone(plugins, path):
    assert place_of(path, Registry(plugins)) == path


def test_inspecting_it_by_name(plugins, folder):
    assert inspect("tiny", plugins).path == str(folder)
