"""The xformers backend: its contract on a stand-in, its reasons, and on a GPU the contract on xformers itself."""

import importlib.util
import inspect
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve

from lightx2v_core.api import BuildContext, Device, PluginError
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import AttentionContract
from lightx2v_xformers.contracts import XformersContract
from lightx2v_xformers.operators import MODULES, operator, operator_reasons, reasons
from lightx2v_xformers.plugin import XformersOptions, lightx2v_attention_backends

_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).with_name("stand_in.py"))
stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_in)

(SPEC,) = lightx2v_attention_backends()
HOPPER = Device(kind="cuda", name="H200", capability=(9, 0), memory=2**37)


class TestOnTheStandIn(AttentionContract):
    """Every dtype, on a CPU."""

    use = "given/xformers"

    def plugins(self):
        return plugin_set(evolve(SPEC, devices=frozenset({"cpu"}), extra=None, unusable=lambda ctx: []))

    @pytest.fixture(autouse=True)
    def _stand_in(self, monkeypatch):
        stand_in.install(monkeypatch)


class TestCutlassOnTheStandIn(TestOnTheStandIn):
    options = {"op": "cutlass"}  # noqa: RUF012


class TestOnThisMachine(XformersContract):
    """With xformers, on a GPU; skipped with the reasons elsewhere, and where its results are wrong."""

    foreign = True


def test_the_stand_in_refuses_what_xformers_refuses():
    q, k, v = (torch.randn(1, 8, 2, 64).half() for _ in range(3))
    stand_in.memory_efficient_attention(q, k, v)
    for given in (
        (q, k.float(), v),
        (q, k, v[:, :4]),
        (torch.cat([q, q]), k, v),
        (q.transpose(2, 3).contiguous().transpose(2, 3), k, v),
        (q[..., :60], k[..., :60], v[..., :60]),
        (torch.randn(1, 8, 2, 65).half()[..., :64], k, v),
    ):
        with pytest.raises((ValueError, NotImplementedError)):
            stand_in.memory_efficient_attention(*given)


def test_the_operator_is_the_one_asked_for(monkeypatch):
    stand_in.install(monkeypatch)
    q = torch.randn(1, 4, 2, 8)
    SPEC.build(XformersOptions(op="cutlass"), BuildContext())(q, q, q)
    SPEC.build(XformersOptions(), BuildContext())(q, q, q)
    assert stand_in.CALLS == ["cutlassF-pt"]


@pytest.mark.parametrize(
    ("op", "device", "dtype", "message"),
    [
        ("flash", HOPPER, "bfloat16", "not part of the installed build"),
        ("triton", HOPPER, "float32", "supports bfloat16, float16, not float32"),
        (
            "triton",
            evolve(HOPPER, capability=(7, 5)),
            "float16",
            r"requires compute capability 8\.0; the device has 7\.5",
        ),
        (
            "flash3",
            evolve(HOPPER, capability=(12, 0)),
            "float16",
            r"capability up to 9\.0; the device has 12\.0",
        ),
    ],
)
def test_an_operator_that_does_not_run_is_refused(op, device, dtype, message, monkeypatch):
    stand_in.install(monkeypatch)
    with pytest.raises(PluginError, match=message):
        SPEC.build(XformersOptions(op=op), BuildContext(device=device, dtype=dtype))


def test_reasons_name_every_operator(monkeypatch):
    stand_in.install(monkeypatch)
    assert not reasons(BuildContext(device=HOPPER, dtype="float32"))
    stand_in.install(monkeypatch, cutlass=False)
    found = reasons(BuildContext(device=HOPPER, dtype="float32"))
    assert [reason.split(":")[0] for reason in found] == [f"operator {name}" for name in MODULES]
    assert not reasons(BuildContext(device=HOPPER, dtype="float16"))


def test_what_cannot_be_imported_is_a_reason(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "xformers":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xformers", None)
    found = reasons(BuildContext(device=HOPPER, dtype="float16"))
    assert len(found) == len(MODULES)
    assert all("cannot be imported" in reason for reason in found)


def test_a_cpu_is_refused_without_importing_anything():
    assert SPEC.unusable(BuildContext()) == ["xformers has no operator for cpu"]


@pytest.mark.filterwarnings("ignore")
def test_the_stand_in_is_like_the_real_one():
    """Signature and operators, where xformers is installed."""
    real = pytest.importorskip("xformers.ops", reason="xformers is not installed")
    ours = inspect.signature(stand_in.memory_efficient_attention).parameters
    theirs = inspect.signature(real.memory_efficient_attention).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    for name in MODULES:
        assert any("cpu" in why for why in operator_reasons(operator(name), BuildContext(dtype="float16")))
