"""What is asked of every implementation, of whatever kind."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import evolve

from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.discovery.plugins import CORE, PluginSet, Provided, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan import device
from lightx2v_core.runtime.proof.verdict import usual_uses, wrong
from lightx2v_core.spec.context import BuildContext, Device
from lightx2v_core.spec.specs import Spec
from lightx2v_core.testing.dists import environment
from lightx2v_core.testing.imports import assert_light_import


class Contract:
    """Inherit the suite of a kind, say which implementation is meant, and a test file is complete::

        class TestMine(AttentionContract):
            use = "mine"

    Checks of behavior are skipped, with the reasons, where the machine cannot use the implementation.
    """

    #: old names of the interface work until a version that is named, so they are told and fail no suite
    pytestmark = pytest.mark.filterwarnings("default:this uses .* \\(the old name goes in:DeprecationWarning")
    kind: ClassVar[str]
    #: the name of the implementation, or ``plugin/name``
    use: ClassVar[str]
    #: its options, as in a configuration file
    options: ClassVar[Mapping[str, Any]] = {}
    #: compute dtype of the checks
    dtype: ClassVar[str] = "float32"
    #: whether its arithmetic is another package's: where that is wrong on this machine, as its proof tells with
    #: figures, the checks of behavior are skipped, since a run refuses it too. Your own kernel is to be right anywhere
    foreign: ClassVar[bool] = False

    def plugins(self) -> PluginSet:
        """Where ``use`` is looked up; what is installed, unless a test says otherwise."""
        return load_plugins()

    @pytest.fixture
    def provided(self) -> Provided:
        return Registry(self.plugins()).find(self.kind, self.use)

    @pytest.fixture
    def spec(self, provided: Provided) -> Any:
        return provided.spec

    @pytest.fixture
    def config(self, spec: Spec[Any]) -> Any:
        return structure(dict(self.options), spec.config)

    @pytest.fixture
    def context(self, spec: Spec[Any]) -> BuildContext:
        """The CPU where that will do, else the accelerator of this machine."""
        where = Device() if "cpu" in spec.devices else device.probe("auto")[0]
        return BuildContext(device=where, dtype=self.dtype)

    @pytest.fixture
    def usable(self, provided: Provided, config: Any, context: BuildContext) -> None:
        """Skips, with the reasons, what this machine cannot do."""
        reasons = provided.reasons(context)
        if not reasons and self.foreign:
            reasons = wrong(provided, config, context, usual_uses(provided.spec))
        if reasons:
            pytest.skip(f"{provided.qualified}: {'; '.join(reasons)}")

    def test_it_says_what_it_is(self, spec: Spec[Any]) -> None:
        assert spec.summary.strip(), "a spec needs a summary: it is what listings show"
        assert "\n" not in spec.summary, "the summary is one line"
        assert len(spec.summary) <= 120, "the summary fits into a line of 120 characters"
        assert spec.devices <= {"cpu", "cuda"}, f"unknown devices: {sorted(spec.devices - {'cpu', 'cuda'})}"
        assert spec.devices, "it runs on no device at all"

    def test_its_options_have_defaults_and_survive_a_file(self, spec: Spec[Any]) -> None:
        default = spec.config()
        assert structure(unstructure(default), spec.config) == default, "what is written is not what is read"

    def test_reasons_are_sentences(self, provided: Provided, context: BuildContext) -> None:
        """Whatever the machine, ``unusable`` answers and does not raise."""
        elsewhere = Device(kind="cuda", name="a device", capability=(7, 0), memory=2**34)
        newest = evolve(elsewhere, capability=(12, 0))
        for where in (context.device, Device(), elsewhere, newest):
            for dtype in ("float32", "float16", "bfloat16"):
                said = provided.spec.unusable(BuildContext(device=where, dtype=dtype))
                assert isinstance(said, Sequence), "unusable returns a sequence of reasons"
                assert not isinstance(said, str), "unusable returns a sequence of reasons, not one string"
                assert all(isinstance(reason, str) and reason.strip() for reason in said), said

    def test_listing_it_is_light(self, provided: Provided) -> None:
        """Importing the plugin imports no heavy package: its ``build`` does."""
        plugin = next(loaded for loaded in self.plugins().plugins if loaded.name == provided.plugin)
        if provided.dist is None and plugin.name != CORE:
            pytest.skip("no installed distribution brings it")
        assert_light_import(plugin.module.partition(":")[0], env=same_imports())


def signature_problems(implementation: object, protocol: type) -> list[str]:
    """Return the methods of ``protocol`` that ``implementation`` cannot be called by: with every parameter, and with
    those alone that have no default. Type checkers see the same, where they see the types."""
    problems = []
    for name, expected in vars(protocol).items():
        if not inspect.isfunction(expected) or (name.startswith("_") and name != "__call__"):
            continue
        method = getattr(implementation, name, None)
        if not callable(method):
            problems.append(f"there is no method {name!r}")
            continue
        parameters = list(inspect.signature(expected).parameters.values())[1:]
        required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
        for passed in (parameters, required):
            positional = [
                parameter.name for parameter in passed if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            ]
            keywords = {
                parameter.name: None
                for parameter in passed
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            }
            try:
                inspect.signature(method).bind(*positional, **keywords)
            except TypeError as exc:
                given = ", ".join([*positional, *(f"{keyword}=" for keyword in keywords)])
                problems.append(f"{name}({given}): {exc}")
                break
    return problems


def same_imports() -> dict[str, str]:
    """The environment of a subprocess that finds the modules that this process finds."""
    return environment(*(Path(folder) for folder in sys.path if folder))
