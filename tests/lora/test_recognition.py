"""What a LoRA file is, from its header alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from lightx2v_core.builtin.safetensors_file import read_header
from lightx2v_core.lora.recognition import describe, expert_claims, expert_hint, is_lora, of_network, parsed
from lightx2v_core.spec.tensors import Header, TensorInfo

#: family -> names of a pair on module ``m``
PAIRS = {
    "standard": ("m.lora_down.weight", "m.lora_up.weight"),
    "peft": ("m.lora_A.weight", "m.lora_B.weight"),
    "peft, named adapter": ("m.lora_A.default.weight", "m.lora_B.default.weight"),
    "peft, bare": ("m.lora_A", "m.lora_B"),
    "diffusers": ("m.lora.down.weight", "m.lora.up.weight"),
    "diffusers, old": ("m_lora.down.weight", "m_lora.up.weight"),
    "transformers": ("m.lora_linear_layer.down.weight", "m.lora_linear_layer.up.weight"),
}


def header(
    shapes: Mapping[str, tuple[int, ...]], *, file: str = "lora.safetensors", **metadata: str
) -> Header:
    infos = {
        name: TensorInfo(name=name, shape=shape, dtype="float16", file=Path(file))
        for name, shape in shapes.items()
    }
    return Header(tensors=infos, metadata=metadata)


def pair(base: str, *, rank: int = 4, alpha: bool = False) -> dict[str, tuple[int, ...]]:
    found = {f"{base}.lora_down.weight": (rank, 8), f"{base}.lora_up.weight": (6, rank)}
    return {**found, f"{base}.alpha": ()} if alpha else found


@pytest.mark.parametrize("family", PAIRS)
def test_a_pair_of_every_family_is_a_lora(family: str) -> None:
    down, up = PAIRS[family]
    found = header({down: (4, 8), up: (6, 4)})
    assert is_lora(found)
    description = describe(found)
    assert (description.family, description.ranks, description.kinds) == (family, (4,), {"low-rank": 1})
    assert description.targets == {"m": 1}
    assert description.unknown == ()


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_unet_diffusion_model_", "lycoris_"])
def test_flat_names_are_a_family_of_their_own(prefix: str) -> None:
    description = describe(header(pair(f"{prefix}blocks_3_ffn_0", alpha=True)))
    assert description.family == "standard, flat names"
    assert description.targets == {"blocks_N_ffn_0": 1}
    assert (description.with_alpha, description.scalable) == (1, 1)


@pytest.mark.parametrize(
    "prefix",
    ["", "diffusion_model.", "model.diffusion_model.", "transformer.", "unet.", "base_model.model.",
     "base_model.model.transformer.", "module.model."],
)  # fmt: skip
def test_prefixes_are_no_part_of_a_module(prefix: str) -> None:
    assert describe(header(pair(f"{prefix}blocks.0.q"))).targets == {"blocks.N.q": 1}


def test_everything_that_a_module_can_have() -> None:
    shapes = {
        **pair("blocks.0.a", rank=2, alpha=True), "blocks.0.a.dora_scale": (6, 1), "blocks.0.a.diff_b": (6,),
        "blocks.0.conv.lora_down.weight": (3, 8, 1), "blocks.0.conv.lora_mid.weight": (3, 3, 2),
        "blocks.0.conv.lora_up.weight": (6, 3, 1), "blocks.0.norm.diff": (8,), "blocks.0.diff_m": (1, 6, 8),
        "x.hada_w1_a": (6, 5), "x.hada_w1_b": (5, 8), "x.hada_w2_a": (6, 5), "x.hada_w2_b": (5, 8),
        "y.lokr_w1": (2, 2), "y.lokr_w2_a": (3, 7), "y.lokr_w2_b": (7, 4),
        "z.lora_A.weight": (4, 8), "z.lora_B.weight": (6, 4), "z.lora_magnitude_vector": (6,),
        "stray.weight": (3, 3), "half.lora_down.weight": (4, 8), "lonely.alpha": (),
    }  # fmt: skip
    description = describe(header(shapes))
    assert description.kinds == {
        "low-rank": 2, "low-rank with mid": 1, "diff": 1, "diff_b": 1, "diff_m": 1, "loha": 1, "lokr": 1,
        "magnitude": 2,
    }  # fmt: skip
    assert description.ranks == (2, 3, 4, 5, 7)
    assert sorted(description.unknown) == ["lonely.alpha", "stray.weight"]
    assert description.magnitudes == 2


def test_weights_are_no_lora() -> None:
    network = {
        f"blocks.{i}.{part}": (4, 4) for i in range(3) for part in ("q.weight", "q.bias", "modulation")
    }
    assert not is_lora(header(network))
    assert not is_lora(header({}))
    assert not is_lora(header({"blocks.0.q.lora_down.weight": (4, 4)}))
    assert not is_lora(header({**network, **pair("blocks.0.q")}))


def test_alphas_are_read_without_torch(tmp_path: Path) -> None:
    values = {"a": ("F16", struct.pack("<e", 3.0)), "b": ("BF16", struct.pack("<f", 16.0)[2:]),
              "c": ("F32", struct.pack("<f", 0.5)), "d": ("I64", struct.pack("<q", 8))}  # fmt: skip
    entries, data = {}, b""

    def add(name: str, dtype: str, shape: list[int], value: bytes) -> None:
        nonlocal data
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(value)]}
        data += value

    for base, (dtype, value) in values.items():
        add(f"{base}.lora_down.weight", "F16", [2, 1], bytes(4))
        add(f"{base}.lora_up.weight", "F16", [1, 2], bytes(4))
        add(f"{base}.alpha", dtype, [], value)
    text = json.dumps(entries).encode()
    path = tmp_path / "lora.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    description = describe(read_header(path))
    assert description.alphas == (0.5, 3.0, 8.0, 16.0)
    assert description.with_alpha == 4


@pytest.mark.parametrize(
    ("file", "expert"),
    [
        ("wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step.safetensors", "high_noise"),
        ("wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step.safetensors", "low_noise"),
        ("Wan22-HighNoise-fox.safetensors", "high_noise"),
        ("fox_LOW.safetensors", "low_noise"),
        ("fox-high-v2.safetensors", "high_noise"),
        ("fox_low_rank.safetensors", None),
        ("high_and_low.safetensors", None),
        ("slow_flow_highway.safetensors", None),
        ("fox.safetensors", None),
    ],
)
def test_the_name_of_a_file_may_name_an_expert(file: str, expert: str | None) -> None:
    found, why = expert_hint(header(pair("blocks.0.q"), file=file), ("high_noise", "low_noise"))
    assert found == expert
    assert (file in why) == (expert is not None)


def test_keys_and_metadata_may_name_an_expert() -> None:
    experts = ("high_noise", "low_noise")
    second = header(pair("transformer_2.blocks.0.q"), file="fox_high.safetensors")
    assert expert_hint(second, experts) == ("low_noise", "key prefix transformer_2")
    titled = header(pair("blocks.0.q"), ss_output_name="fox_high_noise")
    assert expert_hint(titled, experts) == ("high_noise", "metadata ss_output_name")
    assert expert_hint(second, ("dit",)) == (None, "")
    claims = expert_claims(second, experts)
    assert claims == {
        "key prefix transformer_2": "low_noise",
        "file fox_high.safetensors": "high_noise",
    }


@pytest.mark.parametrize(
    ("prefix", "number"),
    [
        ("diffusion_model.transformer_1.", 0), ("transformer_2.", 1), ("base_model.model.transformer_2.", 1),
        ("high_noise_model.", 0), ("diffusion_model.low_noise_model.", 1), ("lora_transformer_1_", 0),
        ("pipe.dit2.", 1),
        ("lora_transformer_2_", 1), ("lora_unet__transformer_2_", 1), ("transformer.", None), ("lora_unet_", None),
        ("lora_unet_blocks_2_", None),
    ],
)  # fmt: skip
def test_prefixes_of_two_networks(prefix: str, number: int | None) -> None:
    assert of_network(f"{prefix}blocks.0.q") == number


def test_a_folder_and_a_pair_may_name_an_expert_and_contradictions_ask() -> None:
    experts = ("high_noise", "low_noise")
    inside = header(pair("blocks.0.q"), file="HighNoise/fox.safetensors")
    assert expert_hint(inside, experts) == ("high_noise", "folder HighNoise")
    against = header(pair("blocks.0.q"), file="HighNoise/fox_low.safetensors")
    why = "file fox_low.safetensors says low_noise and folder HighNoise says high_noise"
    assert expert_hint(against, experts) == (None, why)
    style = header(pair("blocks.0.q"), file="fox_low_style.safetensors")
    assert expert_hint(style, experts) == (None, "")
    beside = ("fox_high_style.safetensors", "fox_low_style.safetensors")
    assert expert_hint(style, experts, beside) == ("low_noise", "file fox_low_style.safetensors")
    renamed = header(pair("blocks.0.q"), file="fox_low.safetensors", ss_output_name="fox_high")
    found, why = expert_hint(renamed, experts)
    assert found is None
    assert why == "metadata ss_output_name says high_noise and file fox_low.safetensors says low_noise"


def test_parts_of_several_adapters_stay_apart() -> None:
    names = [f"m.lora_{part}.{adapter}.weight" for adapter in ("one", "two") for part in "AB"]
    file = parsed(header(dict.fromkeys(names, (4, 4))))
    assert [target.adapter for target in file.targets] == ["one", "two"]
    assert all(set(target.tensors) == {"down", "up"} for target in file.targets)
