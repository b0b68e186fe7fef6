"""The three backends: their contract on stand-ins, their reasons, and on a GPU the contract on the real kernels."""

import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from attrs import evolve

from lightx2v_core.api import BuildContext, Device
from lightx2v_core.discovery import metadata as distributions
from lightx2v_core.discovery.plugins import Provided, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.runtime.proof.verdict import verdict
from lightx2v_core.testing import plugin_set, write_dist
from lightx2v_core.testing.contracts import AttentionContract
from lightx2v_flash_attn.contracts import Flash2Contract, Flash3Contract, Sage2Contract
from lightx2v_flash_attn.plugin import lightx2v_attention_backends

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
SPECS = {spec.name: spec for spec in lightx2v_attention_backends()}
HOPPER = Device(kind="cuda", name="H200", capability=(9, 0), memory=2**37)


def exact(q, k, v, scale):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


#: compute capability of the simulated device
CAPABILITY = [(9, 0)]


def check(q, k, v):
    """Check the common requirements of all three interfaces."""
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError("query, key and value must have the same dtype")
    if not all(x.dim() == 4 and x.stride(-1) == 1 for x in (q, k, v)):
        raise RuntimeError("Input tensor must have contiguous last dimension")
    if not (q.shape[0] == k.shape[0] == v.shape[0] and k.shape == v.shape and q.shape[3] == k.shape[3]):
        raise RuntimeError("the shapes of query, key and value do not fit")
    if q.shape[2] % k.shape[2]:
        raise RuntimeError("Number of heads in key/value must divide number of heads in query")


def check_flash(q, k, v, capability, head_dims=range(8, 257, 8)):
    check(q, k, v)
    if q.shape[3] not in head_dims:
        raise RuntimeError("FlashAttention forward only supports head dimension at most 256, in steps of 8")
    if CAPABILITY[0] < capability:
        raise RuntimeError(f"FlashAttention needs compute capability {capability}")


def check_tma(*tensors):
    """Check the alignment for copies on Hopper: addresses and strides that are multiples of 16 bytes."""
    for x in tensors:
        if x.data_ptr() % 16 or any(
            x.stride(axis) * x.element_size() % 16 for axis in range(3) if x.shape[axis] > 1
        ):
            raise RuntimeError("tensors must be aligned to 16 bytes")


def flash2(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):  # fmt: skip
    """Attention with the signature of flash_attn 2.8."""
    check_flash(q, k, v, (8, 0))
    assert not causal
    return exact(q, k, v, softmax_scale)


def flash3(
    q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None, v_descale=None,
    window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False,
    sm_margin=0, return_attn_probs=False,
):  # fmt: skip
    """Attention with the signature of FlashAttention 3."""
    check_flash(q, k, v, (9, 0))
    check_tma(q, k, v)
    assert not causal
    return exact(q, k, v, softmax_scale)


def flash3_beta(q, k, v, softmax_scale=None, causal=False, deterministic=False):
    """Attention like pre-release builds, which also return the log-sum-exp."""
    return flash3(q, k, v, softmax_scale, causal), torch.zeros(q.shape[0], q.shape[2], q.shape[1])


def sage2(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs):
    """Attention with the signature of sageattention 2 and its rounding, with a scale per token."""
    check(q, k, v)
    if CAPABILITY[0] not in ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0)):
        raise ValueError(f"Unsupported CUDA architecture: {CAPABILITY[0]}")
    if q.shape[3] > 128:
        raise ValueError(f"Unsupported head_dim: {q.shape[3]}")
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
    """With the package, on a GPU; skipped with the reasons elsewhere, and where its results are wrong. So are the next
    two."""

    foreign = True


class TestFlash3OnThisMachine(Flash3Contract):
    foreign = True


class TestSage2OnThisMachine(Sage2Contract):
    foreign = True


@pytest.mark.parametrize(
    ("name", "stand_in", "head_dims"),
    [
        ("flash-attn2", flash2, (8, 64, 128, 256)),
        ("flash-attn3", flash3, (64, 128)),
        ("sage2", sage2, (64, 128)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_stand_ins_pass_the_proof_of_a_run(name, stand_in, head_dims, dtype):
    """Also with 8-bit queries and keys."""
    spec = evolve(SPECS[name], build=lambda _options, _ctx: _through(stand_in, name))
    for head_dim in head_dims:
        item = Provided(kind="attention", plugin="given", spec=spec)
        found = verdict(item, spec.config(), BuildContext(dtype=dtype), KernelUse(head_dim=head_dim))
        assert found.state == "proved", found.text


def _through(stand_in, name):
    from lightx2v_flash_attn.kernels import _Flash, _Sage

    return (_Sage if name == "sage2" else _Flash)(stand_in)


def test_the_stand_ins_refuse_what_the_packages_refuse():
    q, k, v = (torch.randn(1, 8, 2, 64).bfloat16() for _ in range(3))
    bad = [
        (q.float(), k.float(), v.float()),
        (q, k.half(), v),
        (q.transpose(2, 3).contiguous().transpose(2, 3), k, v),
        (q, k[..., :32], v[..., :32]),
        (q, k, v[:, :4]),
        (torch.cat([q, q]), k, v),
    ]
    for function in (flash2, flash3, lambda *x: sage2(*x, tensor_layout="NHD")):
        function(q, k, v)
        for given in bad:
            with pytest.raises(RuntimeError):
                function(*given)
    wide = torch.randn(1, 8, 2, 264).bfloat16()
    for function in (flash2, flash3):
        with pytest.raises(RuntimeError, match="head dimension"):
            function(wide, wide, wide)
    odd = torch.randn(1, 8, 2, 65).bfloat16()[..., :64]
    flash2(odd, k, v)
    with pytest.raises(RuntimeError, match="16 bytes"):
        flash3(odd, k, v)


@pytest.mark.parametrize(
    ("version", "admitted"), [("3.0.0b1", True), ("3.0.0b2", True), ("3.0.0", True), ("3.1.0.dev1", True),
                              ("2.8.3", False)],
)  # fmt: skip
def test_builds_of_flash_attention_3_before_its_release_are_taken(version, admitted, tmp_path, monkeypatch):
    """Checked by the registry's requirement check, on the metadata of a build."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    write_dist(tmp_path, "flash-attn-3", modules={}, plugins={}, version=version, requires=())
    monkeypatch.syspath_prepend(str(tmp_path))
    dist = metadata.distribution("lightx2v-flash-attn")
    extra = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]["flash3"]
    monkeypatch.setattr(distributions, "requirements", lambda _dist: [f"{extra[0]} ; extra == 'flash3'"])
    assert bool(distributions.missing_requirements(dist, "flash3")) != admitted


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
    assert "requires Hopper" in reason


def test_the_machine_never_chooses_them():
    """Even where they are usable: they are not benchmarked, and one of them rounds."""
    registry = Registry(load_plugins())
    names = [item.spec.name for item in registry.candidates("attention")]
    assert all(names.index("sdpa") < names.index(name) for name in SPECS if name in names)
