"""The part of the contract that is common to all kinds of implementations."""

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
    """Base of the suites. Inherit from the suite of a kind and name the implementation::

        class TestMine(AttentionContract):
            use = "mine"

    Checks of behavior are skipped, with the reasons, if the machine cannot use the implementation.
    """

    #: deprecated names of the API still work, so their warnings are shown but do not fail a suite
    pytestmark = pytest.mark.filterwarnings("default:this uses .* \\(the old name goes in:DeprecationWarning")
    #: kind of implementation, as in ``SUITES``
    kind: ClassVar[str]
    #: the name of the implementation, or ``plugin/name``
    use: ClassVar[str]
    #: its options, as in a configuration file
    options: ClassVar[Mapping[str, Any]] = {}
    #: compute dtype of the checks
    dtype: ClassVar[str] = "float32"
    #: whether another package does the arithmetic: if its self-check finds wrong results on this machine, the checks of
    #: behavior are skipped with these figures, as a run rejects it too. Leave it False for kernels of your own
    foreign: ClassVar[bool] = False

    def plugins(self) -> PluginSet:
        """Return the plugins in which ``use`` is looked up: the installed ones. Override it to use others."""
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
        """Return a context for the CPU if the spec supports it, else for the accelerator of this machine."""
        where = Device() if "cpu" in spec.devices else device.probe("auto")[0]
        return BuildContext(device=where, dtype=self.dtype)

    @pytest.fixture
    def usable(self, provided: Provided, config: Any, context: BuildContext) -> None:
        """Skip the test, with the reasons, if this machine cannot use the implementation."""
        reasons = provided.reasons(context)
        if not reasons and self.foreign:
            reasons = wrong(provided, config, context, usual_uses(provided.spec))
        if reasons:
            pytest.skip(f"{provided.qualified}: {'; '.join(reasons)}")

    def test_it_says_what_it_is(self, spec: Spec[Any]) -> None:
        assert spec.summary.strip(), "the summary is empty; listings show it"
        assert "\n" not in spec.summary, "the summary must be one line"
        assert len(spec.summary) <= 120, f"the summary has {len(spec.summary)} characters; the limit is 120"
        assert spec.devices <= {"cpu", "cuda"}, f"unknown devices: {sorted(spec.devices - {'cpu', 'cuda'})}"
        assert spec.devices, "Spec.devices is empty"

    def test_its_options_have_defaults_and_survive_a_file(self, spec: Spec[Any]) -> None:
        default = spec.config()
        assert structure(unstructure(default), spec.config) == default, (
            "default options change when written to a file and read back"
        )

    def test_reasons_are_sentences(self, provided: Provided, context: BuildContext) -> None:
        """Check that ``unusable`` returns reasons and does not raise, on any device."""
        elsewhere = Device(kind="cuda", name="a device", capability=(7, 0), memory=2**34)
        newest = evolve(elsewhere, capability=(12, 0))
        for where in (context.device, Device(), elsewhere, newest):
            for dtype in ("float32", "float16", "bfloat16"):
                said = provided.spec.unusable(BuildContext(device=where, dtype=dtype))
                assert isinstance(said, Sequence), "unusable must return a sequence of reasons"
                assert not isinstance(said, str), "unusable must return a sequence of reasons, not one string"
                assert all(isinstance(reason, str) and reason.strip() for reason in said), said

    def test_listing_it_is_light(self, provided: Provided) -> None:
        """Check that importing the plugin imports no heavy package; those belong into ``build``."""
        plugin = next(loaded for loaded in self.plugins().plugins if loaded.name == provided.plugin)
        if provided.dist is None and plugin.name != CORE:
            pytest.skip("no installed distribution brings it")
        assert_light_import(plugin.module.partition(":")[0], env=same_imports())


def signature_problems(implementation: object, protocol: type) -> list[str]:
    """List the methods of ``protocol`` that ``implementation`` lacks or that cannot be called as declared.

    Each is tried with all parameters, and with the required ones only. Type checkers report the same where they see
    the types.
    """
    problems = []
    for name, expected in vars(protocol).items():
        if not inspect.isfunction(expected) or (name.startswith("_") and name != "__call__"):
            continue
        method = getattr(implementation, name, None)
        if not callable(method):
            problems.append(f"method {name!r} is missing")
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
    """Return the environment for a subprocess with the import path of this process."""
    return environment(*(Path(folder) for folder in sys.path if folder))
