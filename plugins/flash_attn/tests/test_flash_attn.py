"""The three backends: their contract on stand-ins, their reasons, and on a GPU the contract on the real things."""

import sys
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from attrs import evolve

from lightx2v_core.api import BuildContext, Device
from lightx2v_core.plugins import load_plugins
from lightx2v_core.registry import Registry
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import AttentionContract
from lightx2v_flash_attn.contracts import Flash2Contract, Flash3Contract, Sage2Contract
from lightx2v_flash_attn.plugin import lightx2v_attention_backends

SPECS = {spec.name: spec for spec in lightx2v_attention_backends()}
HOPPER = Device(kind="cuda", name="H200", capability=(9, 0), memory=2**37)


def exact(q, k, v, scale):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


def check(q, k, v):
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    assert q.dtype == k.dtype == v.dtype
    assert all(x.stride(-1) == 1 for x in (q, k, v))


def flash2(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):  # fmt: skip
    """The signature of flash_attn 2.8."""
    check(q, k, v)
    assert not causal
    return exact(q, k, v, softmax_scale)


def flash3(
    q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
    window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
    sm_margin=0, return_attn_probs=False,
):  # fmt: skip
    """The signature of FlashAttention 3."""
    check(q, k, v)
    assert not causal
    return exact(q, k, v, softmax_scale)


def flash3_beta(q, k, v, softmax_scale=None, causal=False, deterministic=False):
    """Of the builds before the release: the sums come too."""
    return flash3(q, k, v, softmax_scale, causal), torch.zeros(q.shape[0], q.shape[2], q.shape[1])


def sage2(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs):
    """The signature of sageattention 2, and its rounding: a scale for each token."""
    check(q, k, v)
    assert tensor_layout == "NHD"
    assert not is_causal
    assert not kwargs
    q, k = (_rounded(x.float() - (x.float().mean(dim=1, keepdim=True) if x is k else 0)) for x in (q, k))
    return exact(q, k, v.float(), sm_scale).to(v.dtype)


def _rounded(x):
    step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9) / 127
    return (x / step).round() * step


class OnAStandIn(AttentionContract):
    module: ClassVar[str]
    function: ClassVar[str] = "flash_attn_func"
    stand_in: ClassVar

    def plugins(self):
        spec = SPECS[self.use.partition("/")[2]]
        return plugin_set(evolve(spec, devices=frozenset({"cpu"}), extra=None))

    @pytest.fixture(autouse=True)
    def _module(self, monkeypatch):
        module = ModuleType(self.module)
        setattr(module, self.function, self.stand_in)
        monkeypatch.setitem(sys.modules, self.module, module)


class TestFlash2(OnAStandIn):
    use, module, stand_in = "given/flash-attn2", "flash_attn", staticmethod(flash2)


class TestFlash3(OnAStandIn):
    use, module, stand_in = "given/flash-attn3", "flash_attn_interface", staticmethod(flash3)


class TestFlash3Beta(TestFlash3):
    stand_in = staticmethod(flash3_beta)


class TestSage2(OnAStandIn):
    use, module, function, stand_in = "given/sage2", "sageattention", "sageattn", staticmethod(sage2)
    tolerance: ClassVar = Sage2Contract.tolerance


class TestFlash2OnThisMachine(Flash2Contract):
    """With the package, on a GPU; elsewhere skipped with the reasons. So are the next two."""


class TestFlash3OnThisMachine(Flash3Contract):
    pass


class TestSage2OnThisMachine(Sage2Contract):
    pass


@pytest.mark.parametrize(
    ("name", "module"),
    [("flash-attn2", "flash_attn"), ("flash-attn3", "flash_attn_interface"), ("sage2", "sageattention")],
)
def test_packages_that_do_not_fit_are_reasons(name, module, monkeypatch):
    context = BuildContext(device=HOPPER, dtype="bfloat16")
    monkeypatch.setitem(sys.modules, module, None)
    (reason,) = SPECS[name].unusable(context)
    assert f"{module} cannot be imported" in reason
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    (reason,) = SPECS[name].unusable(context)
    assert f"{module} has no " in reason


def test_flash3_is_for_hopper_only(monkeypatch):
    module = ModuleType("flash_attn_interface")
    module.flash_attn_func = flash3
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    assert not SPECS["flash-attn3"].unusable(BuildContext(device=HOPPER))
    (reason,) = SPECS["flash-attn3"].unusable(BuildContext(device=evolve(HOPPER, capability=(10, 0))))
    assert "made for Hopper" in reason


def test_the_machine_never_chooses_them():
    """Even where they could be used: they are not measured, and one of them rounds."""
    registry = Registry(load_plugins())
    names = [item.spec.name for item in registry.candidates("attention")]
    assert all(names.index("sdpa") < names.index(name) for name in SPECS if name in names)
