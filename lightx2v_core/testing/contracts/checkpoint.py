"""The contract of checkpoints bundled with plugins."""

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
    """An existing folder with a checkpoint that runs, and settings that fit it."""

    kind = "checkpoint"
    #: inputs that its task needs besides a prompt: names of ``inputs`` -> paths. Images required by the task in the
    #: settings are generated.
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
        folder = spec.folder()  # raises if it is not a path
        assert folder.is_absolute(), (
            f"{folder} is relative; CheckpointSpec.folder must return an absolute path"
        )
        assert folder.is_dir(), f"{folder} is not a folder"
        assert any(folder.iterdir()), f"{folder} is empty"

    def test_its_name_begins_a_path(self, spec: CheckpointSpec[Any]) -> None:
        assert "/" not in spec.name, "the name must be a single path component"

    def test_its_settings_are_those_of_a_configuration(self, spec: CheckpointSpec[Any]) -> None:
        loaded = load_config(spec.settings)
        assert not loaded.warnings, loaded.warnings
        asked = {"model_path", "prompt", "output", "inputs", "device"} & set(spec.settings)
        assert not asked, f"settings reserved for the user: {sorted(asked)}"

    def test_nothing_in_it_is_broken(self, inspection: Inspection) -> None:
        assert not inspection.problems, inspection.problems
        assert not inspection.others, f"unrecognized files: {[other.file for other in inspection.others]}"

    def test_it_can_be_used(self, inspection: Inspection, spec: CheckpointSpec[Any], tmp_path: Path) -> None:
        """Plan a run with the folder and check that its settings take effect; folders of LoRA files are exempt."""
        if inspection.loras and not inspection.components:
            return
        inputs = {**self._pictures(spec.settings.get("task", ""), tmp_path), **self.inputs}
        said = {"model_path": spec.name, "prompt": "a red fox", "inputs": inputs, "device": "cpu"}
        plan = resolve(load_config(said), self.plugins()).plan
        for key in spec.settings.get("sampling", {}):
            assert plan.origins[key] == f"checkpoint {spec.name}", f"{key}: {plan.origins[key]}"

    def _pictures(self, task: str, folder: Path) -> dict[str, str]:
        """Write a grey image for each image input that all models require for this task; returns input name -> path."""
        import torch

        models = [cast("ModelSpec[Any]", provided.spec) for provided in self.plugins().provided("model")]
        tasks = [model.tasks[task] for model in models if task in model.tasks]
        needed = frozenset.intersection(*(task.required for task in tasks)) if tasks else frozenset()
        image = folder / "grey.png"
        image.write_bytes(png_bytes(torch.full((64, 64, 3), 127, dtype=torch.uint8)))
        return {name: str(image) for name in sorted(needed & {"image", "last_image"})}
