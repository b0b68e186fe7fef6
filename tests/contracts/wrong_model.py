"""Models with one mistake each: a right one, spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve

from lightx2v_core.api import Geometry, ModelSpec
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import ModelContract
from lightx2v_wan21.plugin import lightx2v_models

SPEC: ModelSpec[Any] = lightx2v_models()[0]
#: its network, known by the name of the file alone
BY_NAME = evolve(SPEC.components[0], signature=(), files=SPEC.components[0].files[:1])


class Wrong(ModelContract):
    use = "given/wan2.1"
    size = (32, 32)
    caught_by: ClassVar[str]
    more: ClassVar[Mapping[str, Any]] = {}

    def plugins(self) -> PluginSet:
        return plugin_set(evolve(SPEC, **self.more))


class TestRight(Wrong):
    """The one that is not wrong."""


class TestTwoOfOneName(Wrong):
    caught_by = "test_its_tasks_and_components_fit_together"
    more: ClassVar = {"components": (*SPEC.components, SPEC.components[0])}


def by_chance(folder: Path, seed: int) -> None:
    assert SPEC.write_tiny is not None
    SPEC.write_tiny(folder, int(torch.randint(2**31, ())))


class TestTinyByChance(Wrong):
    caught_by = "test_the_tiny_checkpoint_is_the_same_for_the_same_seed"
    more: ClassVar = {"write_tiny": by_chance}


class TestHasNoTiny(Wrong):
    caught_by = "test_it_makes_the_video_of_its_plan"
    more: ClassVar = {"write_tiny": None}


class TestWeighsNothing(Wrong):
    caught_by = "test_a_plan_is_complete_data"
    more: ClassVar = {
        "memory": lambda *given: {name: evolve(need, weights=0) for name, need in SPEC.memory(*given).items()}
    }


class TestDefaultsThatCannotBe(Wrong):
    caught_by = "test_its_defaults_are_legal"
    more: ClassVar = {"defaults": lambda *given: evolve(SPEC.defaults(*given), frames=80)}


class TestArchitectureOfObjects(Wrong):
    caught_by = "test_architecture_is_plain_data"

    @staticmethod
    def recognize(facts: Any) -> Any:
        found = SPEC.recognize(facts)
        return (
            found
            if isinstance(found, str)
            else evolve(found, architecture={**found.architecture, "folder": facts.folder})
        )

    more: ClassVar = {"recognize": recognize}


class TestKnowsOnlyItsOwn(Wrong):
    caught_by = "test_other_folders_are_refused_in_words"

    @staticmethod
    def recognize(facts: Any) -> Any:
        assert facts.headers["dit"].shapes["patch_embedding.weight"]
        return SPEC.recognize(facts)

    more: ClassVar = {
        "recognize": recognize,
        "components": (
            evolve(SPEC.components[0], signature=(), files=SPEC.components[0].files[:1]),
            *SPEC.components[1:],
        ),
    }


class TestTakesAnySize(Wrong):
    caught_by = "test_impossible_sizes_are_refused_in_words"

    @staticmethod
    def geometry(recognition: Any, target: Any) -> Geometry:
        return SPEC.geometry(
            recognition, evolve(target, width=max(target.width, 16), height=max(target.height, 16))
        )

    more: ClassVar = {"geometry": geometry}


class TestForgetsItsReferences(Wrong):
    """Its plan has leading latent frames that are not video, but its latents have none."""

    caught_by = "test_it_makes_the_video_of_its_plan"
    more: ClassVar = {"geometry": lambda *given: evolve(SPEC.geometry(*given), lead=1)}


class Spoilt:
    """A loaded model that decodes otherwise."""

    def __init__(self, model: Any, change: Any) -> None:
        self._model, self._change = model, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self, latents: Any, request: Any) -> Any:
        for chunk in self._model.decode(latents, request):
            yield self._change(chunk)


class TestGivesNoNumbers(Wrong):
    caught_by = "test_it_makes_the_video_of_its_plan"
    more: ClassVar = {"build": lambda *given: Spoilt(SPEC.build(*given), lambda chunk: chunk * float("nan"))}


class TestRandomFrames(Wrong):
    caught_by = "test_it_makes_the_video_of_its_plan"
    more: ClassVar = {
        "build": lambda *given: Spoilt(SPEC.build(*given), lambda chunk: chunk + torch.rand_like(chunk) / 10)
    }


class TestSmallerFrames(Wrong):
    caught_by = "test_it_makes_the_video_of_its_plan"
    more: ClassVar = {"build": lambda *given: Spoilt(SPEC.build(*given), lambda chunk: chunk[..., 1:])}


class WithoutSegments(Spoilt):
    """It was written before videos could have segments."""

    def encode(self, request: Any, inputs: Any, *, guided: bool, emit: Any) -> Any:
        return self._model.encode(request, inputs, guided=guided, emit=emit)


class TestLacksAParameter(Wrong):
    caught_by = "test_its_methods_take_what_a_run_passes"
    more: ClassVar = {"build": lambda *given: WithoutSegments(SPEC.build(*given), None)}


class WithoutDefault(Spoilt):
    def encode(self, request: Any, inputs: Any, *, guided: bool, emit: Any, before: Any) -> Any:
        return self._model.encode(request, inputs, guided=guided, emit=emit, before=before)


class TestWantsWhatIsOptional(Wrong):
    caught_by = "test_its_methods_take_what_a_run_passes"
    more: ClassVar = {"build": lambda *given: WithoutDefault(SPEC.build(*given), None)}


class TestHasNoExperts(Wrong):
    caught_by = "test_its_methods_take_what_a_run_passes"

    @staticmethod
    def build(*given: Any) -> Any:
        model = Spoilt(SPEC.build(*given), lambda chunk: chunk)
        model.expert = None
        return model

    more: ClassVar = {"build": build}
