"""The contract of models, tested with the tiny checkpoint that a model can write."""

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
    """Recognizing, planning, building and running. ``inputs`` are those of the tiny checkpoint's tasks."""

    kind = "model"
    #: a small valid size (width, height), in pixels
    size: ClassVar[tuple[int, int]] = (64, 64)
    #: a small valid frame count
    frames: ClassVar[int] = 5
    #: denoising steps of the runs
    steps: ClassVar[int] = 2
    #: task -> input name -> path, image or tensor, or a function without arguments that returns one
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pytest.fixture
    def folder(self, spec: ModelSpec[Any], usable: None, tmp_path: Path) -> Path:
        if spec.write_tiny is None:
            pytest.fail(
                "ModelSpec.write_tiny is missing; this suite, demonstrations and other tests run on it"
            )
        spec.write_tiny(tmp_path / "tiny", 0)
        return tmp_path / "tiny"

    @pytest.fixture
    def tasks(self, folder: Path, provided: Provided, spec: ModelSpec[Any]) -> tuple[str, ...]:
        """Return the tasks of the tiny checkpoint."""
        try:
            return self.resolved(folder, provided, None).setup.match.recognition.tasks
        except RequestError:  # there are several
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
        assert spec.tasks, "ModelSpec.tasks is empty"
        assert names, "ModelSpec.components is empty"
        assert len(names) == len(set(names)), "component names are not unique"
        for part in spec.components:
            assert part.files, f"{part.name}: ComponentSpec.files is empty"
            assert part.summary, f"{part.name}: ComponentSpec.summary is empty"
        for task, what in spec.tasks.items():
            assert not what.required & what.optional, f"{task}: an input is both required and optional"
            assert what.audio is None or what.audio in what.takes, (
                f"{task}: audio names an unknown input: {what.audio}"
            )

    def test_the_tiny_checkpoint_is_the_same_for_the_same_seed(
        self, spec: ModelSpec[Any], folder: Path
    ) -> None:
        assert spec.write_tiny is not None
        again = folder.parent / "again"
        spec.write_tiny(again, 0)
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        assert {path.relative_to(again) for path in again.rglob("*") if path.is_file()} == set(files)
        for name, path in files.items():
            if path.suffix != ".pth":  # their archives contain times
                assert path.read_bytes() == (again / name).read_bytes(), f"{name} differs"

    def test_a_plan_is_complete_data(self, folder: Path, provided: Provided, tasks: tuple[str, ...]) -> None:
        for task in tasks:
            plan = self.resolved(folder, provided, task, **self.small()).plan
            assert json.loads(json.dumps(plan.to_json())), "the plan is not JSON"
            assert plan.model == provided.qualified
            assert plan.geometry.tokens > 0
            assert all(size > 0 for size in plan.geometry.latent_shape)
            for part in plan.components:
                assert part.weights > 0, f"{part.name}: the memory forecast has no weights"
                assert part.activations >= 0

    def test_its_defaults_are_legal(self, folder: Path, provided: Provided, tasks: tuple[str, ...]) -> None:
        """Plan every task with default values only."""
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
        """Plan every preset, the smallest size and the two shortest lengths, and check that sizes and lengths in
        between are rejected."""
        for task in tasks:
            rules = self.resolved(folder, provided, task).plan.sizes
            inputs = spec.tasks[task]
            assert set(rules.shaped_by) <= inputs.takes, f"{task}: shaped_by names an unknown input"
            assert rules.frame_step >= 1
            assert rules.least_frames >= 1
            for size in (*rules.presets, rules.step):
                if rules.step == (1, 1) and size == rules.step:
                    continue  # sizes are not restricted
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
        """Check that the architecture is JSON, and that all components list their tensors."""
        recognition = self.resolved(folder, provided, tasks[0]).setup.match.recognition
        assert json.dumps(dict(recognition.architecture))
        assert set(recognition.tasks) <= set(spec.tasks)
        assert set(recognition.expected) == set(recognition.components), (
            "Recognition.expected must list the tensors of each component"
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
        """Check for user-readable errors: an empty folder, a foreign network, and damaged files."""
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
            assert len(str(refused.value)) > 20, (
                f"the message does not explain the problem with the folder: {refused.value}"
            )
            assert "recognition failed" not in str(refused.value), (
                f"recognize raised; return the reason as a string instead: {refused.value}"
            )

    def test_impossible_sizes_are_refused_in_words(
        self, folder: Path, provided: Provided, tasks: tuple[str, ...]
    ) -> None:
        """Check that a size of one pixel is rejected before weights are read."""
        with pytest.raises(RequestError):
            self.resolved(folder, provided, tasks[0], size=(1, 1), frames=self.frames)

    def test_its_methods_take_what_a_run_passes(
        self, folder: Path, provided: Provided, tasks: tuple[str, ...]
    ) -> None:
        """Check the methods of ``VideoModel`` with all parameters, including those for tasks of other models."""
        resolved = self.resolved(folder, provided, tasks[0], **self.small())
        problems = signature_problems(build_model(resolved, emit=ignore).model, VideoModel)
        assert not problems, f"it is not a VideoModel: {'; '.join(problems)}"

    def test_it_makes_the_video_of_its_plan(
        self, folder: Path, provided: Provided, spec: ModelSpec[Any], tasks: tuple[str, ...]
    ) -> None:
        """Generate videos: planned size, range [-1, 1], equal for equal seeds, different for others."""
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
            assert first.frames.isfinite().all(), f"{task}: frames contain nan or infinity"
            assert first.frames.abs().max() <= 1
            assert torch.equal(first.frames, again.frames), f"{task}: the same seed gives a different video"
            assert not torch.equal(first.latents, other.latents), (
                f"{task}: different seeds give the same video"
            )
            assert tuple(first.latents.shape) == first.plan.geometry.video_latents, (
                f"{task}: lead or segments of Geometry and Conditions differ"
            )
            decoded = pipeline.decode(first.latents, frames=request.frames)
            assert torch.equal(decoded, first.frames), (
                f"{task}: decoding the returned latents gives different frames"
            )
            ran.append(task)
        assert ran, f"no task was run: set inputs for one of {', '.join(tasks)}"
