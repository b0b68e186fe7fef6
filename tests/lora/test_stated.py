"""The scale of a LoRA file that is stated outside its tensors, and unsupported settings."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.lora.recognition import parsed
from lightx2v_core.lora.stated import StatedStrengths, stated
from lightx2v_core.spec.tensors import Header, TensorInfo

Q, K, FFN = "blocks.0.self_attn.q", "blocks.11.cross_attn.k", "blocks.1.ffn.0"
#: what PEFT 0.21 writes for a LoRA that has nothing out of the ordinary
PEFT = {
    "task_type": None, "peft_type": "LORA", "auto_mapping": None, "peft_version": "0.21.2", "bias": "none", "r": 4,
    "base_model_name_or_path": None, "revision": None, "inference_mode": True, "lora_alpha": 8, "lora_dropout": 0.1,
    "target_modules": ["q", "k"], "exclude_modules": None, "fan_in_fan_out": False, "use_rslora": False,
    "modules_to_save": None, "init_lora_weights": True, "layers_to_transform": None, "layers_pattern": None,
    "rank_pattern": {}, "alpha_pattern": {}, "megatron_config": None, "megatron_core": "megatron.core",
    "trainable_token_indices": None, "loftq_config": {}, "eva_config": None, "corda_config": None,
    "lora_ga_config": None, "use_dora": False, "velora_config": None, "alora_invocation_tokens": None,
    "use_qalora": False, "qalora_group_size": 16, "monteclora_config": None, "layer_replication": None,
    "lora_bias": False, "target_parameters": None, "use_bdlora": None, "arrow_config": None, "kasa_config": None,
    "ensure_weight_tying": False,
}  # fmt: skip


def header(*bases: str, rank: int = 4, alpha: bool = False, more: str = "", **metadata: str) -> Header:
    names = {}
    for base in bases:
        names |= {f"{base}.lora_A.weight": (rank, 8), f"{base}.lora_B.weight": (6, rank)}
        names |= {f"{base}.alpha": ()} if alpha else {}
        names |= {f"{base}.{more}": (6,)} if more else {}
    infos = {
        name: TensorInfo(name=name, shape=shape, dtype="float16", file=Path("lora.safetensors"))
        for name, shape in names.items()
    }
    return Header(tensors=infos, metadata=metadata)


def scales(found: StatedStrengths, head: Header) -> dict[str, float]:
    """Module -> scale."""
    assert not found.doubt
    return {
        target.base: found.strengths[info.name].over(target.rank)
        for target in parsed(head).targets
        for info in target.tensors.values()
        if info.name in found.strengths
    }


def of_peft(head: Header, **changed: Any) -> StatedStrengths:
    return stated(parsed(head), PEFT | changed)


def of_diffusers(said: Mapping[str, Any], *bases: str, **more: Any) -> tuple[StatedStrengths, Header]:
    head = header(*bases, lora_adapter_metadata=json.dumps(said), **more)
    return stated(parsed(head)), head


def test_the_configuration_of_peft_scales() -> None:
    bases = tuple(f"base_model.model.{base}" for base in (Q, K, FFN))
    head = header(*bases)
    assert set(scales(of_peft(head), head).values()) == {2.0}
    assert set(scales(of_peft(head, use_rslora=True), head).values()) == {4.0}
    assert set(scales(of_peft(head, lora_alpha=6.0, r=4), head).values()) == {1.5}
    assert scales(of_peft(head, lora_alpha=0), head) == {}
    assert of_peft(head).where == "adapter_config.json"


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ({"self_attn.q": 16}, [4, 2, 2]), ({"blocks.11.cross_attn.k": 4}, [2, 1, 2]), ({"q": 4, "k": 16}, [1, 4, 2]),
        ({"attn.q": 16}, [2, 2, 2]), ({r"blocks\.\d+\.ffn\.0": 2}, [2, 2, 0.5]), ({"^blocks.1.*": 4}, [2, 1, 1]),
        ({".*attn.(q|k)": 12, "k": 4}, [3, 3, 2]), ({"k": 4, ".*attn.(q|k)": 12}, [3, 1, 2]),
        ({"blocks.1": 4}, [2, 2, 2]),
    ],
)  # fmt: skip
def test_alphas_of_some_modules_are_told_by_the_ends_of_names(
    patterns: dict[str, float], wanted: list[float]
) -> None:
    for prefix in ("base_model.model.", "transformer.", ""):
        head = header(*(f"{prefix}{base}" for base in (Q, K, FFN)))
        assert list(scales(of_peft(head, alpha_pattern=patterns), head).values()) == wanted


def test_ranks_of_some_modules() -> None:
    tensors = header(Q).tensors | header(K, rank=2).tensors
    head = Header(tensors=tensors)
    assert scales(of_peft(head, rank_pattern={"cross_attn.k": 2}), head) == {Q: 2.0, K: 4.0}
    assert "rank 4 for" in of_peft(head).doubt


@pytest.mark.parametrize("rslora", [False, True])
def test_diffusers_says_it_for_each_of_its_networks(rslora: bool) -> None:
    said = {
        "transformer.r": 4, "transformer.lora_alpha": 8, "transformer.use_rslora": rslora,
        "transformer_2.r": 4, "transformer_2.lora_alpha": 2, "transformer_2.alpha_pattern": {"to_k": 16},
        "text_encoder.r": 8, "text_encoder.lora_alpha": 999, "transformer.rank_pattern": {},
    }  # fmt: skip
    bases = (
        "transformer.blocks.0.attn1.to_q",
        "transformer_2.blocks.0.attn1.to_q",
        "transformer_2.blocks.0.attn1.to_k",
    )
    found, head = of_diffusers(said, *bases)
    assert list(scales(found, head).values()) == [4.0 if rslora else 2.0, 0.5, 4.0]
    assert found.where == "metadata lora_adapter_metadata"
    # names that say none of its networks, and all networks alike
    alike = {
        f"{name}.{key}": value for name in ("transformer", "transformer_2") for key, value in PEFT.items()
    }
    found, head = of_diffusers(alike, f"diffusion_model.{Q}")
    assert list(scales(found, head).values()) == [2.0]
    found, _ = of_diffusers(said, f"diffusion_model.{Q}")
    assert "not for diffusion_model.blocks.0.self_attn.q" in found.doubt
    nested = {"transformer": {"r": 4, "lora_alpha": 12}}
    found, head = of_diffusers(nested, "transformer.a")
    assert list(scales(found, head).values()) == [3.0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"peft_type": "ADALORA"}, "peft_type ADALORA"), ({"peft_type": "PeftType.OFT"}, "peft_type OFT"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"), ({"lora_alpha": "much"}, "lora_alpha much"),
        ({"lora_alpha": -4}, "lora_alpha -4"), ({"lora_alpha": float("inf")}, "lora_alpha inf"),
        ({"r": 8}, "rank 8 for"),
        ({"use_rslora": "yes"}, "use_rslora yes"), ({"use_rslora": True, "lora_alpha": None}, "without lora_alpha"),
        ({"use_dora": True}, "has no magnitude"), ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern q: x"), ({"rank_pattern": {"(": 4}}, "rank_pattern ("),
        ({"use_qalora": True}, "use_qalora True"), ({"layer_replication": [[0, 4]]}, "layer_replication"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"), ({"use_new_trick": True}, "use_new_trick"),
        ({"lora_scale_factor": 3}, "lora_scale_factor"), ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_a_doubt(said: dict[str, Any], words: str) -> None:
    head = header(f"base_model.model.{Q}")
    found = of_peft(head, **said)
    assert words in found.doubt
    assert not found.strengths


@pytest.mark.parametrize(
    "said",
    [
        {"init_lora_weights": "gaussian"}, {"init_lora_weights": "eva"}, {"init_lora_weights": False},
        {"bias": "lora_only"},
        {"lora_bias": True}, {"modules_to_save": ["head"]}, {"layers_to_transform": [0]}, {"my_notes": "steps 100"},
        {"eva_config": {"rho": 2.0}}, {"peft_type": "PeftType.LORA"}, {"target_modules": "all-linear"},
    ],
)  # fmt: skip
def test_what_does_not_change_the_tensors_is_none(said: dict[str, Any]) -> None:
    head = header(f"base_model.model.{Q}")
    assert set(scales(of_peft(head, **said), head).values()) == {2.0}


def test_metadata_that_cannot_be_read() -> None:
    for text in ("{", "[1]", "null", "8", "[" * 100_000):
        head = header(Q, lora_adapter_metadata=text)
        assert "cannot be read" in stated(parsed(head)).doubt
    assert "cannot be read" in stated(parsed(header(Q)), None, "x cannot be read").doubt


def test_alphas_among_the_tensors_go_first() -> None:
    head = header(Q, alpha=True, lora_adapter_metadata=json.dumps({"transformer.lora_alpha": 8}))
    assert stated(parsed(head)) == StatedStrengths(where="metadata lora_adapter_metadata")
    assert stated(parsed(header(Q, alpha=True)), {"r": 77, "lora_alpha": 5}) == StatedStrengths()
    both = header(Q, alpha=True, lora_adapter_metadata=json.dumps({"use_rslora": True, "lora_alpha": 8}))
    assert "has an alpha of its own" in stated(parsed(both)).doubt


def test_numbers_in_the_metadata_matter_when_the_scale_is_not_1() -> None:
    assert stated(parsed(header(Q, lora_alpha="4"))) == StatedStrengths()
    assert stated(parsed(header(Q, rank="4", ss_network_alpha="2"))) == StatedStrengths()
    assert stated(parsed(header(Q, alpha=True, lora_alpha="2"))) == StatedStrengths()
    assert "lora_alpha 8" in stated(parsed(header(Q, lora_alpha="8"))).doubt
    assert "use_rslora True" in stated(parsed(header(Q, use_rslora="True"))).doubt
    assert "scale 0.5" in stated(parsed(header(Q, scale="0.5"))).doubt


@pytest.mark.parametrize(
    "name", [f"{Q}.lora_alpha", f"{Q}.lora_down.alpha", f"{Q}.scale", "alpha", "lora_scale"]
)
def test_single_numbers_beside_a_pair_that_are_not_known(name: str) -> None:
    head = header(Q)
    scalar = {name: TensorInfo(name=name, shape=(1,), dtype="float32", file=Path("lora.safetensors"))}
    found = stated(parsed(Header(tensors={**head.tensors, **scalar})))
    assert f"its unknown tensor {name} may be a scale" in found.doubt
    left = {
        f"{K}.alpha": TensorInfo(name=f"{K}.alpha", shape=(), dtype="float32", file=Path("lora.safetensors"))
    }
    assert stated(parsed(Header(tensors={**head.tensors, **left}))) == StatedStrengths()


def test_a_kronecker_product_of_whole_factors_has_the_rank_that_is_said() -> None:
    names = {f"{Q}.lokr_w1": (4, 4), f"{Q}.lokr_w2": (2, 2), f"{K}.lokr_w1": (4, 4), f"{K}.lokr_w2_a": (2, 3),
             f"{K}.lokr_w2_b": (3, 2)}  # fmt: skip
    infos = {
        name: TensorInfo(name=name, shape=shape, dtype="float32", file=Path("x"))
        for name, shape in names.items()
    }
    head = Header(tensors=infos)
    said = {"peft_type": "LOKR", "r": 3, "alpha": 6, "alpha_pattern": {"self_attn.q": 12}}
    found = stated(parsed(head), said)
    assert (found.strengths[f"{Q}.lokr_w1"].over(None), found.strengths[f"{K}.lokr_w1"].over(3)) == (4.0, 2.0)


def test_magnitudes_that_are_there_are_understood() -> None:
    head = header(Q, more="lora_magnitude_vector")
    assert scales(of_peft(head, use_dora=True), head) == {Q: 2.0}


def test_hostile_patterns_take_no_time() -> None:
    head = header(*(f"blocks.{n}." + "a" * 200 for n in range(200)))
    began = time.perf_counter()
    for pattern in ("(a+)+$", "(a|aa)+$", "a*a*a*a*a*a*b", "(.*)*b", ".{1,9}" * 30):
        assert "alpha_pattern" in of_peft(head, alpha_pattern={pattern: 4}).doubt
    many = {f"x.{n}": 4 for n in range(50_000)}
    assert not of_peft(head, alpha_pattern=many, rank_pattern=many).doubt
    assert not of_peft(head, alpha_pattern={".*a.*b": 4}).doubt
    assert time.perf_counter() - began < 20
