"""Checkpoints that come with plugins, with one mistake each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lightx2v_core.api import CheckpointSpec
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import CheckpointContract


class Wrong(CheckpointContract):
    use = "given/tiny"
    caught_by: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {"sampling": {"size": "64x64", "frames": 5, "steps": 2}}

    @pytest.fixture(autouse=True)
    def written(self, tmp_path: Path) -> None:
        self.place = tmp_path / "tiny"
        (model,) = (item.spec for item in load_plugins().provided("model") if item.spec.name == "wan2.1")
        model.write_tiny(self.place, 0)
        self.spoil(self.place)

    def spoil(self, folder: Path) -> None:
        """Nothing."""

    def folder_given(self) -> Any:
        return self.place

    def plugins(self) -> PluginSet:
        spec = CheckpointSpec(
            name="tiny", summary="a tiny one", folder=self.folder_given, settings=self.settings
        )
        (plugin,) = (item for item in load_plugins().plugins if item.name == "wan21")
        return plugin_set(spec, wan21=sys.modules[plugin.module.partition(":")[0]])


class TestRight(Wrong):
    """The one that is not wrong."""


class TestIsAText(Wrong):
    caught_by = "test_its_folder_is_there"

    def folder_given(self) -> Any:
        return str(self.place)


class TestIsEmpty(Wrong):
    caught_by = "test_its_folder_is_there"

    def spoil(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


class TestSaysWhatItDoesNotKnow(Wrong):
    caught_by = "test_its_settings_are_those_of_a_configuration"
    settings: ClassVar = {"sampling": {"stps": 4}}


class TestSaysWhatTheUserSays(Wrong):
    caught_by = "test_its_settings_are_those_of_a_configuration"
    settings: ClassVar = {"prompt": "a red fox"}


class TestIsTorn(Wrong):
    caught_by = "test_nothing_in_it_is_broken"

    def spoil(self, folder: Path) -> None:
        file = max(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
        file.write_bytes(file.read_bytes()[:-100])


class TestLacksItsNetwork(Wrong):
    caught_by = "test_it_can_be_used"

    def spoil(self, folder: Path) -> None:
        for file in folder.glob("diffusion_pytorch_model*"):
            file.unlink()


class TestHasSettingsThatDoNotFit(Wrong):
    caught_by = "test_it_can_be_used"
    settings: ClassVar = {"sampling": {"frames": 6, "size": "64x64", "steps": 2}, "task": "i2v"}


class TestIsOfAnotherShape(Wrong):
    caught_by = "test_it_can_be_used"

    def spoil(self, folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "num_layers": 99}))
