"""The contract of checkpoints that come with plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from lightx2v_core.config.load import load_config
from lightx2v_core.inspection.inspect import inspect
from lightx2v_core.inspection.report import Inspection
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.runtime.video import png_bytes
from lightx2v_core.spec.specs import CheckpointSpec, ModelSpec
from lightx2v_core.testing.contracts.common import Contract


class CheckpointContract(Contract):
    """A folder that is there, holds what runs, and brings settings that fit it."""

    kind = "checkpoint"
    #: what its task needs beside a prompt: names of ``inputs`` -> paths. A task that the settings name and that needs
    #: pictures is given some.
    inputs: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def folder(self, spec: CheckpointSpec[Any], usable: None) -> Path:
        return spec.folder()

    @pytest.fixture
    def inspection(self, folder: Path) -> Inspection:
        plugins = self.plugins()
        if not plugins.provided("model"):
            pytest.skip("no model plugin is installed")
        return inspect(folder, plugins)

    def test_its_folder_is_there(self, spec: CheckpointSpec[Any]) -> None:
        folder = spec.folder()  # raises when that is no path
        assert folder.is_absolute(), f"{folder} depends on the current folder"
        assert folder.is_dir(), f"{folder} is no folder"
        assert any(folder.iterdir()), f"{folder} is empty"

    def test_its_name_begins_a_path(self, spec: CheckpointSpec[Any]) -> None:
        assert "/" not in spec.name, "the name is the first part of a path"

    def test_its_settings_are_those_of_a_configuration(self, spec: CheckpointSpec[Any]) -> None:
        loaded = load_config(spec.settings)
        assert not loaded.warnings, loaded.warnings
        asked = {"model_path", "prompt", "output", "inputs", "device"} & set(spec.settings)
        assert not asked, f"who runs it says these, not the checkpoint: {sorted(asked)}"

    def test_nothing_in_it_is_broken(self, inspection: Inspection) -> None:
        assert not inspection.problems, inspection.problems
        assert not inspection.others, (
            f"files that no one knows: {[other.file for other in inspection.others]}"
        )

    def test_it_can_be_used(self, inspection: Inspection, spec: CheckpointSpec[Any], tmp_path: Path) -> None:
        """As a model's folder, or as a folder of LoRA files; its settings are those that a run of it shows."""
        if inspection.loras and not inspection.components:
            return
        inputs = {**self._pictures(spec.settings.get("task", ""), tmp_path), **self.inputs}
        said = {"model_path": spec.name, "prompt": "a red fox", "inputs": inputs, "device": "cpu"}
        plan = resolve(load_config(said), self.plugins()).plan
        for key in spec.settings.get("sampling", {}):
            assert plan.origins[key] == f"checkpoint {spec.name}", f"{key}: {plan.origins[key]}"

    def _pictures(self, task: str, folder: Path) -> dict[str, str]:
        """A grey picture for each that every model's task of this name needs."""
        import torch

        models = [cast("ModelSpec[Any]", provided.spec) for provided in self.plugins().provided("model")]
        tasks = [model.tasks[task] for model in models if task in model.tasks]
        needed = frozenset.intersection(*(task.required for task in tasks)) if tasks else frozenset()
        picture = folder / "grey.png"
        picture.write_bytes(png_bytes(torch.full((64, 64, 3), 127, dtype=torch.uint8)))
        return {name: str(picture) for name in sorted(needed & {"image", "last_image"})}
