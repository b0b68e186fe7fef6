"""A LoRA file against the tensors of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from lightx2v_core.lora.matching import match
from lightx2v_core.spec.components import KeyMap
from lightx2v_core.spec.tensors import Header, TensorInfo

NETWORK = {
    "blocks.0.attn.q.weight": (6, 8), "blocks.0.attn.q.bias": (6,), "blocks.0.norm.weight": (8,),
    "blocks.0.modulation": (1, 6, 8), "blocks.0.kv.weight": (12, 8), "patch.weight": (6, 4, 1, 2, 2),
    "positions": (1, 5, 8), "model.odd.weight": (6, 8),
}  # fmt: skip
OTHER = KeyMap(
    name="other",
    renames=(
        (r"^layers\.(\d+)\.", r"blocks.\1."),
        (r"^(blocks\.\d+)\.attn1\.to_q\.", r"\1.attn.q."),
        (r"^(blocks\.\d+)\.attn1\.to_out\.0\.", r"\1.attn.q."),
        (r"^(blocks\.\d+)\.to_([kv])\.(.+)$", r"\1.kv.\3#\2"),
        (r"^(blocks\.\d+)\.shift_table$", r"\1.modulation"),
    ),
    joins=("k", "v"),
)
Q = "blocks.0.attn.q.weight"


def header(shapes: Mapping[str, tuple[int, ...]]) -> Header:
    file = Path("lora.safetensors")
    return Header(
        tensors={
            name: TensorInfo(name=name, shape=shape, dtype="float16", file=file)
            for name, shape in shapes.items()
        }
    )


def pair(
    base: str, *, rows: int = 6, inner: tuple[int, ...] = (8,), rank: int = 4
) -> dict[str, tuple[int, ...]]:
    ones = (1,) * (len(inner) - 1)
    return {f"{base}.lora_down.weight": (rank, *inner), f"{base}.lora_up.weight": (rows, rank, *ones)}


@pytest.mark.parametrize(
    "base",
    ["blocks.0.attn.q", "diffusion_model.blocks.0.attn.q", "model.diffusion_model.blocks.0.attn.q",
     "base_model.model.blocks.0.attn.q", "transformer.layers.0.attn1.to_q", "layers.0.attn1.processor.to_q",
     "unet.layers.0.attn1.processor.to_out", "lora_unet_blocks_0_attn_q", "lora_unet_layers_0_attn1_to_q",
     "lora_unet_diffusion_model_blocks_0_attn_q", "lycoris_layers_0_attn1_to_out_0"],
)  # fmt: skip
def test_a_module_is_found_by_every_name(base: str) -> None:
    found = match(header({**pair(base), f"{base}.alpha": ()}), NETWORK, (OTHER,))
    assert found.whole
    assert len(found.matched) == 3
    (change,) = found.changes
    assert (change.target, change.kind, change.rank, change.shape, change.rows) == (
        Q,
        "low-rank",
        4,
        (6, 8),
        None,
    )
    assert set(change.tensors) == {"down", "up", "alpha"}


def test_a_name_of_the_network_itself_wins_over_a_prefix() -> None:
    assert match(header(pair("model.odd")), NETWORK).changes[0].target == "model.odd.weight"


def test_differences_of_every_parameter() -> None:
    found = match(
        header(
            {
                "diffusion_model.blocks.0.attn.q.diff": (6, 8),
                "diffusion_model.blocks.0.attn.q.diff_b": (6,),
                "diffusion_model.blocks.0.norm.diff": (8,),
                "diffusion_model.blocks.0.diff_m": (1, 6, 8),
                "positions.diff": (1, 5, 8),
                "patch.diff": (6, 4, 1, 2, 2),
            }
        ),
        NETWORK,
    )
    assert found.whole
    assert {change.target for change in found.changes} == {
        Q, "blocks.0.attn.q.bias", "blocks.0.norm.weight", "blocks.0.modulation", "positions", "patch.weight",
    }  # fmt: skip
    assert {change.kind for change in found.changes} == {"diff"}
    assert match(header({"layers.0.shift_table.diff": (1, 6, 8)}), NETWORK, (OTHER,)).whole


def test_a_pair_and_a_difference_of_one_module() -> None:
    found = match(header({**pair("blocks.0.attn.q"), "blocks.0.attn.q.diff": (6, 8)}), NETWORK)
    assert [(change.kind, change.target) for change in found.changes] == [("low-rank", Q), ("diff", Q)]


def test_a_bias_of_the_second_matrix_is_scaled_like_the_pair() -> None:
    shapes = {
        "blocks.0.attn.q.lora_A.weight": (4, 8), "blocks.0.attn.q.lora_B.weight": (6, 4),
        "blocks.0.attn.q.lora_B.bias": (6,), "blocks.0.attn.q.alpha": (),
    }  # fmt: skip
    found = match(header(shapes), NETWORK)
    assert found.whole
    assert [(c.target, c.kind, c.rank, "alpha" in c.tensors) for c in found.changes] == [
        (Q, "low-rank", 4, True),
        ("blocks.0.attn.q.bias", "diff", 4, True),
    ]


def test_parts_that_a_layout_keeps_apart_are_rows_of_one_tensor() -> None:
    found = match(header({**pair("layers.0.to_v"), **pair("lora_unet_layers_0_to_k")}), NETWORK, (OTHER,))
    assert found.whole
    assert [(c.target, c.rows, c.part_shape) for c in found.changes] == [
        ("blocks.0.kv.weight", (6, 12), (6, 8)),
        ("blocks.0.kv.weight", (0, 6), (6, 8)),
    ]


@pytest.mark.parametrize("inner", [(4, 1, 2, 2), (16,)])
def test_convolutions(inner: tuple[int, ...]) -> None:
    assert match(header(pair("patch", inner=inner)), NETWORK).whole


def test_tucker_loha_and_lokr() -> None:
    shapes = {
        "patch.lora_down.weight": (3, 4, 1, 1, 1), "patch.lora_mid.weight": (3, 3, 1, 2, 2),
        "patch.lora_up.weight": (6, 3, 1, 1, 1),
        "blocks.0.attn.q.hada_w1_a": (6, 2), "blocks.0.attn.q.hada_w1_b": (2, 8),
        "blocks.0.attn.q.hada_w2_a": (6, 2), "blocks.0.attn.q.hada_w2_b": (2, 8),
        "model.odd.lokr_w1": (2, 2), "model.odd.lokr_w2_a": (3, 1), "model.odd.lokr_w2_b": (1, 4),
    }  # fmt: skip
    found = match(header(shapes), NETWORK)
    assert found.whole, found
    assert {change.kind for change in found.changes} == {"low-rank", "loha", "lokr"}


def test_what_is_not_there_is_said() -> None:
    shapes = {
        **pair("blocks.7.attn.q"),
        "lora_te_text.lora_down.weight": (4, 8),
        "stray": (1,),
        **pair("blocks.0.attn.q"),
    }
    found = match(header(shapes), NETWORK)
    assert len(found.matched) == 2
    assert found.unmatched["blocks.7.attn.q.lora_up.weight"] == "the network has no such tensor"
    assert found.unmatched["lora_te_text.lora_down.weight"].endswith("is incomplete: no up")
    assert found.unmatched["stray"] == "not a known part of a LoRA"
    assert not found.whole
    assert not found.mismatched


@pytest.mark.parametrize(
    "shapes",
    [
        {"blocks.0.attn.q.lora_down.weight": (4, 9), "blocks.0.attn.q.lora_up.weight": (6, 4)},
        {"blocks.0.attn.q.lora_down.weight": (4, 8), "blocks.0.attn.q.lora_up.weight": (7, 4)},
        {"blocks.0.attn.q.lora_down.weight": (4, 8), "blocks.0.attn.q.lora_up.weight": (6, 3)},
        {"blocks.0.attn.q.lora_down.weight": (0, 8), "blocks.0.attn.q.lora_up.weight": (6, 0)},
        {"blocks.0.attn.q.lora_down.weight": (4,), "blocks.0.attn.q.lora_up.weight": (6, 4)},
        {**pair("blocks.0.attn.q"), "blocks.0.attn.q.alpha": (2,)},
        {**pair("blocks.0.attn.q"), "blocks.0.attn.q.dora_scale": (5, 1)},
        {"blocks.0.norm.diff": (9,)},
        pair("blocks.0.norm"),
        pair("patch", inner=(4, 1, 3, 2)),
        {f"blocks.0.attn.q.hada_w{i}": (6, 3) for i in ("1_a", "1_b", "2_a", "2_b")},
        {"blocks.0.attn.q.lokr_w1": (2, 2), "blocks.0.attn.q.lokr_w2": (4, 4)},
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_said(shapes: dict[str, tuple[int, ...]]) -> None:
    found = match(header(shapes), NETWORK)
    assert found.changes == ()
    assert set(found.mismatched) == set(shapes)
    assert all("the file has" in why or "alpha" in why for why in found.mismatched.values())


def test_a_tensor_is_changed_once() -> None:
    found = match(header({**pair("blocks.0.attn.q"), **pair("diffusion_model.blocks.0.attn.q")}), NETWORK)
    assert len(found.changes) == 1
    assert all("is already changed by blocks.0.attn.q" in why for why in found.unmatched.values())


def test_names_that_two_tensors_share_when_flat_mean_neither() -> None:
    network = {"a.b_c.weight": (6, 8), "a_b.c.weight": (6, 8)}
    assert match(header(pair("lora_unet_a_b_c")), network).changes == ()
