"""The contract of models, on the tiny checkpoint that a model can write of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lightx2v_core import load
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.config.structure import unstructure
from lightx2v_core.discovery.plugins import CORE, Provided
from lightx2v_core.errors import RequestError
from lightx2v_core.events import ignore
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.runtime.build import build_model
from lightx2v_core.spec.protocols import VideoModel
from lightx2v_core.spec.specs import ModelSpec
from lightx2v_core.testing.contracts.common import Contract, same_imports, signature_problems
from lightx2v_core.testing.imports import heavy_imports


class ModelContract(Contract):
    """Recognize, plan, build and run. ``inputs`` are what the tasks of the tiny checkpoint need beside a prompt."""

    kind = "model"
    #: a small legal size and length
    size: ClassVar[tuple[int, int]] = (64, 64)
    frames: ClassVar[int] = 5
    steps: ClassVar[int] = 2
    #: task -> its inputs: paths, images or tensors, or functions without arguments that make them
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pytest.fixture
    def folder(self, spec: ModelSpec[Any], usable: None, tmp_path: Path) -> Path:
        if spec.write_tiny is None:
            pytest.fail("ModelSpec.write_tiny is what this suite, demonstrations and tests of others run on")
        spec.write_tiny(tmp_path / "tiny", 0)
        return tmp_path / "tiny"

    @pytest.fixture
    def tasks(self, folder: Path, provided: Provided, spec: ModelSpec[Any]) -> tuple[str, ...]:
        """What the tiny checkpoint does."""
        try:
            return self.resolved(folder, provided, None).setup.match.recognition.tasks
        except RequestError:  # it does several
            for task in sorted(spec.tasks):
                try:
                    return self.resolved(folder, provided, task).setup.match.recognition.tasks
                except RequestError:
                    continue
            raise

    def resolved(self, folder: Path, provided: Provided, task: str | None, **sampling: Any) -> Resolution:
        values: dict[tuple[str, ...], Any] = {
            ("model_path",): str(folder),
            ("model",): {"use": [provided.qualified], "options": {provided.qualified: dict(self.options)}},
            ("prompt",): "a red fox",
            ("device",): "cpu",
        }
        if task is not None:
            values["task",] = task
        values |= {("sampling", name): value for name, value in sampling.items()}
        said = [Value(path=path, value=value, origin="contract") for path, value in values.items()]
        return resolve(load_config(None, said), self.plugins())

    def small(self) -> dict[str, Any]:
        return {"size": self.size, "frames": self.frames, "steps": self.steps}

    def given(self, task: str) -> dict[str, Any]:
        return {
            name: value() if callable(value) else value for name, value in self.inputs.get(task, {}).items()
        }

    def test_its_tasks_and_components_fit_together(self, spec: ModelSpec[Any]) -> None:
        names = [part.name for part in spec.components]
        assert spec.tasks, "a model does something"
        assert names, "a model has components"
        assert len(names) == len(set(names)), "each component has a name of its own"
        for part in spec.components:
            assert part.files, f"{part.name}: say which files it lies in"
            assert part.summary, f"{part.name}: say what it is"
        for task, what in spec.tasks.items():
            assert not what.required & what.optional, f"{task}: an input is required and optional at once"
            assert what.audio is None or what.audio in what.takes, f"{task}: no such input: {what.audio}"

    def test_the_tiny_checkpoint_is_the_same_for_the_same_seed(
        self, spec: ModelSpec[Any], folder: Path
    ) -> None:
        assert spec.write_tiny is not None
        again = folder.parent / "again"
        spec.write_tiny(again, 0)
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        assert {path.relative_to(again) for path in again.rglob("*") if path.is_file()} == set(files)
        for name, path in files.items():
            if path.suffix != ".pth":  # their archives hold times
                assert path.read_bytes() == (again / name).read_bytes(), f"{name} differs"

    def test_a_plan_is_complete_data(self, folder: Path, provided: Provided, tasks: tuple[str, ...]) -> None:
        for task in tasks:
            plan = self.resolved(folder, provided, task, **self.small()).plan
            assert json.loads(json.dumps(plan.to_json())), "a plan is JSON"
            assert plan.model == provided.qualified
            assert plan.geometry.tokens > 0
            assert all(size > 0 for size in plan.geometry.latent_shape)
            for part in plan.components:
                assert part.weights > 0, f"{part.name}: the forecast says it weighs nothing"
                assert part.activations >= 0

    def test_its_defaults_are_legal(self, folder: Path, provided: Provided, tasks: tuple[str, ...]) -> None:
        """What a user gets who says nothing can be planned."""
        for task in tasks:
            plan = self.resolved(folder, provided, task).plan
            request = plan.request
            assert request.steps >= 1
            assert request.frames >= 1
            assert request.fps > 0
            assert request.shift > 0

    def test_the_sizes_that_it_offers_are_legal(
        self, folder: Path, provided: Provided, spec: ModelSpec[Any], tasks: tuple[str, ...]
    ) -> None:
        """Every preset, the smallest size, and the lengths after the shortest can be planned, and what lies between
        cannot."""
        for task in tasks:
            rules = self.resolved(folder, provided, task).plan.sizes
            inputs = spec.tasks[task]
            assert set(rules.shaped_by) <= inputs.takes, f"{task}: shaped_by names no input of it"
            assert rules.frame_step >= 1
            assert rules.least_frames >= 1
            for size in (*rules.presets, rules.step):
                if rules.step == (1, 1) and size == rules.step:
                    continue  # nothing is said of sizes
                for frames in (rules.least_frames, rules.least_frames + rules.frame_step):
                    plan = self.resolved(folder, provided, task, size=size, frames=frames).plan
                    assert (plan.geometry.width, plan.geometry.height, plan.geometry.frames) == (
                        *size,
                        frames,
                    )
            if rules.step[0] > 1:
                with pytest.raises(RequestError):
                    self.resolved(folder, provided, task, size=(rules.step[0] + 1, rules.step[1]))
            if rules.frame_step > 1:
                with pytest.raises(RequestError):
                    self.resolved(folder, provided, task, frames=rules.least_frames + 1)

    def test_architecture_is_plain_data(
        self, folder: Path, provided: Provided, spec: ModelSpec[Any], tasks: tuple[str, ...]
    ) -> None:
        """It is handed to ``build``, and may travel."""
        recognition = self.resolved(folder, provided, tasks[0]).setup.match.recognition
        assert json.dumps(dict(recognition.architecture))
        assert set(recognition.tasks) <= set(spec.tasks)
        assert set(recognition.expected) == set(recognition.components), (
            "each component says which tensors it needs"
        )

    def test_planning_needs_no_torch(self, folder: Path, provided: Provided, tasks: tuple[str, ...]) -> None:
        if provided.dist is None and provided.plugin != CORE:
            pytest.skip("no installed distribution brings it")
        width, height = self.size
        heavy = heavy_imports(
            "from lightx2v_core.cli import main\nimport sys\nmain(sys.argv[1:])",
            forbidden=("torch", "numpy", "transformers"),
            env=same_imports(),
            arguments=(
                "plan", "--model-path", str(folder), "--model", provided.qualified, "--task", tasks[0],
                "--size", f"{width}x{height}", "--frames", str(self.frames), "--device", "cpu",
            ),
        )  # fmt: skip
        assert not heavy, f"planning imports {', '.join(heavy)}"

    def test_other_folders_are_refused_in_words(
        self, folder: Path, provided: Provided, spec: ModelSpec[Any], tmp_path: Path
    ) -> None:
        """An empty folder, one with a foreign network, and one whose files are rubbish: errors meant for users."""
        import torch
        from safetensors.torch import save_file

        empty, foreign, rubbish = (tmp_path / name for name in ("empty", "foreign", "rubbish"))
        for place in (empty, foreign, rubbish):
            place.mkdir()
        tensors = {"layers.0.weight": torch.zeros(4, 4), "embedding.weight": torch.zeros(8, 4)}
        names = [name.replace("*", "") for part in spec.components for name in part.files]
        for name in names:
            if name.endswith(".safetensors"):
                (foreign / name).parent.mkdir(parents=True, exist_ok=True)
                save_file(tensors, foreign / name)
        for path in folder.rglob("*"):
            there = path.relative_to(folder)
            if path.is_file():
                (rubbish / there).parent.mkdir(parents=True, exist_ok=True)
                (rubbish / there).write_bytes(b"nothing that makes sense" * 40)
        for place in (empty, foreign, rubbish):
            with pytest.raises(RequestError) as refused:
                self.resolved(place, provided, None)
            assert len(str(refused.value)) > 20, "say what is wrong with the folder"
            assert "recognition failed" not in str(refused.value), f"refuse it in words: {refused.value}"

    def test_impossible_sizes_are_refused_in_words(
        self, folder: Path, provided: Provided, tasks: tuple[str, ...]
    ) -> None:
        """A pixel is no video. Whatever else is said, it is said before weights are read."""
        with pytest.raises(RequestError):
            self.resolved(folder, provided, tasks[0], size=(1, 1), frames=self.frames)

    def test_its_methods_take_what_a_run_passes(
        self, folder: Path, provided: Provided, tasks: tuple[str, ...]
    ) -> None:
        """Every method of ``VideoModel``, with every parameter: those of tasks that it does not have are passed too."""
        resolved = self.resolved(folder, provided, tasks[0], **self.small())
        problems = signature_problems(build_model(resolved, emit=ignore).model, VideoModel)
        assert not problems, f"it is not a VideoModel: {'; '.join(problems)}"

    def test_it_makes_the_video_of_its_plan(
        self, folder: Path, provided: Provided, spec: ModelSpec[Any], tasks: tuple[str, ...]
    ) -> None:
        """Frames of the planned size in [-1, 1], the same for a seed, others for another; requests keep nothing."""
        import torch

        ran = []
        for task in tasks:
            needs = spec.tasks[task].required
            given = self.given(task)
            if needs - set(given):
                continue
            options = unstructure(dict(self.options))
            model = {"use": [provided.qualified], "options": {provided.qualified: options}}
            config = {"dtype": self.dtype, "model": model}
            pipeline = load(
                folder,
                task=task,
                device="cpu",
                plugins=self.plugins(),
                config=config,
                **self.small(),
            )
            first = pipeline.generate(prompt="a red fox", seed=1, **given)
            other = pipeline.generate(prompt="a red fox", seed=2, **given)
            again = pipeline.generate(prompt="a red fox", seed=1, **given)
            request = first.plan.request
            assert first.frames.shape == (3, request.frames, request.height, request.width)
            assert first.frames.isfinite().all(), f"{task}: frames that are no numbers"
            assert first.frames.abs().max() <= 1
            assert torch.equal(first.frames, again.frames), f"{task}: the same seed gives another video"
            assert not torch.equal(first.latents, other.latents), f"{task}: another seed gives the same video"
            assert tuple(first.latents.shape) == first.plan.geometry.video_latents, (
                f"{task}: 'lead' and the segments of Geometry are not those of Conditions"
            )
            decoded = pipeline.decode(first.latents, frames=request.frames)
            assert torch.equal(decoded, first.frames), f"{task}: its latents decode to other frames"
            ran.append(task)
        assert ran, f"give inputs for one of {', '.join(tasks)}, so that it can run"
