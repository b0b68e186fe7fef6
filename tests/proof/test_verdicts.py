"""What proofs say of kernels that are right and of kernels that are wrong, in each dtype and format."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

torch = pytest.importorskip("torch")

from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.plan.plan import KernelUse  # noqa: E402
from lightx2v_core.runtime.proof.verdict import usual_uses, verdict, wrong  # noqa: E402
from lightx2v_core.spec.context import BuildContext  # noqa: E402

_spec = importlib.util.spec_from_file_location("proof_kernels", Path(__file__).with_name("kernels.py"))
assert _spec is not None
assert _spec.loader is not None
kernels = importlib.util.module_from_spec(_spec)
sys.modules["proof_kernels"] = kernels
_spec.loader.exec_module(kernels)

DTYPES = ("float32", "bfloat16", "float16")


def uses(spec: Any) -> list[KernelUse]:
    found = list(usual_uses(spec))
    return [KernelUse(head_dim=dim) for dim in (8, 64, 128)] if found[0].head_dim else found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "spec"), [(kind, spec) for kind, specs in kernels.SOUND.items() for spec in specs], ids=str
)
def test_what_is_right_is_proved(kind: str, spec: Any, dtype: str) -> None:
    item = kernels.provided(spec, kind)
    for use in uses(spec):
        found = verdict(item, spec.config(), BuildContext(dtype=dtype), use)
        assert (found.state, found.text) == ("proved", ""), use


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [(kind, spec, words) for kind, specs in kernels.FAULTY.items() for spec, words in specs],
    ids=str,
)
def test_what_is_wrong_is_refused_with_figures(kind: str, spec: Any, words: str, dtype: str) -> None:
    use = KernelUse(head_dim=64) if kind == "attention" else uses(spec)[0]
    (reason,) = wrong(kernels.provided(spec, kind), spec.config(), BuildContext(dtype=dtype), [use])
    assert reason.startswith("wrong on this machine: ")
    assert words.replace("float32", dtype) in reason
    assert "\n" not in reason
    assert "its proof failed" in reason or "tolerance" in reason, "figures, and the bound"


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_installed_is_right_or_says_by_how_much_it_is_wrong(dtype: str) -> None:
    """Of the core, nothing is wrong on any machine; of the kernels of other packages each may be."""
    ctx = BuildContext(dtype=dtype)
    for kind in ("attention", "quantizer", "lora_applier"):
        for item in load_plugins().provided(kind):
            if item.reasons(ctx):
                continue
            for use in uses(item.spec):
                found = verdict(item, item.spec.config(), ctx, use)
                assert found.state in ("proved", "open") or item.plugin in ("torchao", "vllm"), found
                assert found.state == "proved" or found.text


def test_a_proof_runs_once_a_process_for_each_use() -> None:
    calls: list[int] = []

    def build(_options: Any, _ctx: Any) -> Any:
        calls.append(1)
        return kernels.right

    spec = kernels.attention(kernels.right, build=build)
    ctx, use = BuildContext(), KernelUse(head_dim=16)
    first = verdict(kernels.provided(spec, "attention"), spec.config(), ctx, use)
    # another PluginSet, and so another spec of the same kernel
    assert verdict(kernels.provided(evolve(spec), "attention"), spec.config(), ctx, use) is first
    assert len(calls) == 1
    verdict(kernels.provided(spec, "attention"), spec.config(), BuildContext(dtype="bfloat16"), use)
    verdict(kernels.provided(spec, "attention"), spec.config(), ctx, KernelUse(head_dim=32))
    assert len(calls) == 3


def test_an_interrupt_from_outside_is_no_verdict() -> None:
    calls: list[int] = []

    def interrupted(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return kernels.right(q, k, v, scale=scale)

    spec = kernels.attention(interrupted)
    item, use = kernels.provided(spec, "attention"), KernelUse(head_dim=64)
    with pytest.raises(KeyboardInterrupt):
        verdict(item, spec.config(), BuildContext(), use)
    assert verdict(item, spec.config(), BuildContext(), use).state == "proved"


def test_a_format_that_nothing_can_store_is_left_open() -> None:
    spec = kernels.quantizer(kernels.Exact, formats=("nvfp4",))
    found = verdict(
        kernels.provided(spec, "quantizer"), spec.config(), BuildContext(), KernelUse(format="nvfp4")
    )
    assert (found.state, "no quantizer here stores a weight in nvfp4" in found.text) == ("open", True)
    picky = kernels.quantizer(kernels.Int8, refuses=lambda _shape, _ctx: "too odd")
    found = verdict(
        kernels.provided(picky, "quantizer"), picky.config(), BuildContext(), KernelUse(format="int8-channel")
    )
    assert found.state == "open"


def test_nothing_is_left_behind() -> None:
    """Neither the state of random numbers, nor tensors that need gradients, nor a mode."""
    before = torch.random.get_rng_state()
    for kind, specs in kernels.SOUND.items():
        spec = evolve(specs[0])
        verdict(kernels.provided(spec, kind), spec.config(), BuildContext(dtype="float16"), uses(spec)[0])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
