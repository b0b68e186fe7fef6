"""The maps of other layouts at the real sizes: a bijection between their names and the official ones.

Names of the other layouts are listed here, from the state dicts of diffusers and transformers; ``tox -e oracles``
checks them against these libraries.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_core.checkpoint.layouts import MappedHeader, apply_key_map
from lightx2v_core.spec.components import KeyMap
from lightx2v_core.spec.tensors import Header, TensorInfo
from lightx2v_wan21 import api

Shapes = dict[str, tuple[int, ...]]

_LARGE = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
DITS = {
    "t2v": api.DitArchitecture(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_dim=16, out_dim=16),
    "i2v": api.DitArchitecture(**_LARGE, in_dim=36, image_dim=1280),
    "flf2v": api.DitArchitecture(**_LARGE, in_dim=36, image_dim=1280, image_positions=514),
    "vace": api.DitArchitecture(**_LARGE, in_dim=16, vace_layers=tuple(range(0, 40, 5))),
}
UMT5 = api.Umt5Architecture(
    vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24
)
CLIP = api.ClipArchitecture(dim=1280, dim_mlp=5120, num_layers=31)
VAE = api.VaeArchitecture(dim=96, dec_dim=96)


def mapped(key_map: KeyMap, shapes: Shapes) -> MappedHeader | None:
    tensors = {
        name: TensorInfo(name=name, shape=shape, dtype="bfloat16", file=Path("x.safetensors"))
        for name, shape in shapes.items()
    }
    return apply_key_map(key_map, Header(tensors=tensors))


def result(key_map: KeyMap, shapes: Shapes) -> Shapes:
    found = mapped(key_map, shapes)
    assert found is not None, "two tensors get one name, or a part is missing"
    return found.header.shapes


_NORMS = ("attn1.norm_q.weight", "attn1.norm_k.weight", "attn2.norm_q.weight", "attn2.norm_k.weight")


def dit_block(name: str, arch: api.DitArchitecture, *, image: bool) -> Shapes:
    dim, ffn = arch.dim, arch.ffn_dim
    square = [f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    if image:
        square += ["attn2.add_k_proj", "attn2.add_v_proj"]
    shapes: Shapes = {f"{part}.weight": (dim, dim) for part in square}
    shapes |= {f"{part}.bias": (dim,) for part in square}
    shapes |= dict.fromkeys((*_NORMS, "norm2.weight", "norm2.bias"), (dim,))
    if image:
        shapes["attn2.norm_added_k.weight"] = (dim,)
    shapes |= {
        "scale_shift_table": (1, 6, dim),
        "ffn.net.0.proj.weight": (ffn, dim),
        "ffn.net.0.proj.bias": (ffn,),
        "ffn.net.2.weight": (dim, ffn),
        "ffn.net.2.bias": (dim,),
    }
    return {f"{name}.{part}": shape for part, shape in shapes.items()}


def diffusers_dit(arch: api.DitArchitecture) -> Shapes:
    dim, image = arch.dim, arch.image_dim
    embed = "condition_embedder"
    shapes: Shapes = {
        **api.affine("patch_embedding", dim, arch.in_dim, *arch.patch_size),
        **api.affine(f"{embed}.text_embedder.linear_1", dim, arch.text_dim),
        **api.affine(f"{embed}.text_embedder.linear_2", dim, dim),
        **api.affine(f"{embed}.time_embedder.linear_1", dim, arch.freq_dim),
        **api.affine(f"{embed}.time_embedder.linear_2", dim, dim),
        **api.affine(f"{embed}.time_proj", 6 * dim, dim),
        **api.affine("proj_out", 4 * arch.out_dim, dim),
        "scale_shift_table": (1, 2, dim),
    }
    if image:
        shapes |= {
            **api.affine(f"{embed}.image_embedder.norm1", image),
            **api.affine(f"{embed}.image_embedder.ff.net.0.proj", image, image),
            **api.affine(f"{embed}.image_embedder.ff.net.2", dim, image),
            **api.affine(f"{embed}.image_embedder.norm2", dim),
        }
    if arch.image_positions:
        shapes[f"{embed}.image_embedder.pos_embed"] = (1, arch.image_positions, image)
    for index in range(arch.num_layers):
        shapes |= dit_block(f"blocks.{index}", arch, image=bool(image))
    if arch.vace_layers:
        shapes |= api.affine("vace_patch_embedding", dim, arch.vace_in_dim, *arch.patch_size)
        shapes |= api.affine("vace_blocks.0.proj_in", dim, dim)
    for index in range(len(arch.vace_layers)):
        shapes |= dit_block(f"vace_blocks.{index}", arch, image=False)
        shapes |= api.affine(f"vace_blocks.{index}.proj_out", dim, dim)
    return shapes


@pytest.mark.parametrize("task", DITS)
def test_transformer_of_diffusers(task: str) -> None:
    arch = DITS[task]
    assert result(api.DIT_DIFFUSERS, diffusers_dit(arch)) == api.dit_tensors(arch)


def test_what_follows_a_layer_is_carried_on() -> None:
    stored = {"blocks.3.attn2.to_out.0.weight_scale": (8, 1), "blocks.3.attn2.norm_added_q.weight": (8,)}
    assert result(api.DIT_DIFFUSERS, stored) == {"blocks.3.cross_attn.o.weight_scale": (8, 1)}


@pytest.mark.parametrize("task", DITS)
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
def test_transformer_of_comfyui(task: str, prefix: str) -> None:
    expected = api.dit_tensors(DITS[task])
    for marker in ("scaled_fp8", f"{prefix}scaled_fp8"):
        stored = {f"{prefix}{name}": shape for name, shape in expected.items()} | {marker: (2,)}
        assert result(api.DIT_COMFYUI, stored) == expected


def resnet(name: str, in_dim: int, out_dim: int) -> Shapes:
    shapes: Shapes = {
        f"{name}.norm1.gamma": (in_dim, 1, 1, 1),
        **api.affine(f"{name}.conv1", out_dim, in_dim, 3, 3, 3),
        f"{name}.norm2.gamma": (out_dim, 1, 1, 1),
        **api.affine(f"{name}.conv2", out_dim, out_dim, 3, 3, 3),
    }
    if in_dim != out_dim:
        shapes |= api.affine(f"{name}.conv_shortcut", out_dim, in_dim, 1, 1, 1)
    return shapes


def middle(name: str, dim: int) -> Shapes:
    return {
        **resnet(f"{name}.resnets.0", dim, dim),
        f"{name}.attentions.0.norm.gamma": (dim, 1, 1),
        **api.affine(f"{name}.attentions.0.to_qkv", 3 * dim, dim, 1, 1),
        **api.affine(f"{name}.attentions.0.proj", dim, dim, 1, 1),
        **resnet(f"{name}.resnets.1", dim, dim),
    }


def diffusers_vae() -> Shapes:
    shapes: Shapes = {
        **api.affine("quant_conv", 32, 32, 1, 1, 1),
        **api.affine("post_quant_conv", 16, 16, 1, 1, 1),
        **api.affine("encoder.conv_in", 96, 3, 3, 3, 3),
        **middle("encoder.mid_block", 384),
        "encoder.norm_out.gamma": (384, 1, 1, 1),
        **api.affine("encoder.conv_out", 32, 384, 3, 3, 3),
        **api.affine("decoder.conv_in", 384, 16, 3, 3, 3),
        **middle("decoder.mid_block", 384),
        "decoder.norm_out.gamma": (96, 1, 1, 1),
        **api.affine("decoder.conv_out", 3, 96, 3, 3, 3),
    }
    # the encoder is a flat list, as officially: two residual blocks, then one that halves the size
    for stage, (width, out, temporal) in enumerate(
        ((96, 96, False), (96, 192, True), (192, 384, True), (384, 384, False))
    ):
        name = "encoder.down_blocks"
        shapes |= resnet(f"{name}.{3 * stage}", width, out) | resnet(f"{name}.{3 * stage + 1}", out, out)
        if stage < 3:
            shapes |= api.affine(f"{name}.{3 * stage + 2}.resample.1", out, out, 3, 3)
        if temporal:
            shapes |= api.affine(f"{name}.{3 * stage + 2}.time_conv", out, out, 3, 1, 1)
    for stage, (width, out, temporal) in enumerate(
        ((384, 384, True), (192, 384, True), (192, 192, False), (96, 96, False))
    ):
        name = f"decoder.up_blocks.{stage}"
        for block in range(3):
            shapes |= resnet(f"{name}.resnets.{block}", out if block else width, out)
        if stage < 3:
            shapes |= api.affine(f"{name}.upsamplers.0.resample.1", out // 2, out, 3, 3)
        if temporal:
            shapes |= api.affine(f"{name}.upsamplers.0.time_conv", 2 * out, out, 3, 1, 1)
    return shapes


def test_vae_of_diffusers() -> None:
    assert result(api.VAE_DIFFUSERS, diffusers_vae()) == api.vae_tensors(VAE)


def transformers_umt5(prefix: str) -> Shapes:
    dim, inner, ffn = UMT5.dim, UMT5.dim_attn, UMT5.dim_ffn
    shapes: Shapes = {"shared.weight": (UMT5.vocab_size, dim), f"{prefix}final_layer_norm.weight": (dim,)}
    for index in range(UMT5.num_layers):
        layer = f"{prefix}block.{index}.layer"
        shapes |= {f"{layer}.0.SelfAttention.{part}.weight": (inner, dim) for part in "qkv"}
        shapes |= {
            f"{layer}.0.SelfAttention.o.weight": (dim, inner),
            f"{layer}.0.SelfAttention.relative_attention_bias.weight": (32, UMT5.num_heads),
            f"{layer}.0.layer_norm.weight": (dim,),
            f"{layer}.1.layer_norm.weight": (dim,),
            f"{layer}.1.DenseReluDense.wi_0.weight": (ffn, dim),
            f"{layer}.1.DenseReluDense.wi_1.weight": (ffn, dim),
            f"{layer}.1.DenseReluDense.wo.weight": (dim, ffn),
        }
    return shapes


@pytest.mark.parametrize("prefix", ["encoder.", ""])
def test_text_encoder_of_transformers_and_comfyui(prefix: str) -> None:
    stored = transformers_umt5(prefix)
    assert result(api.UMT5_TRANSFORMERS, stored) == api.umt5_tensors(UMT5)
    extra: Shapes = {
        f"{prefix}embed_tokens.weight": (256384, 4096),
        "spiece_model": (4548313,),
        "scaled_fp8": (0,),
    }
    assert result(api.UMT5_TRANSFORMERS, stored | extra) == api.umt5_tensors(UMT5)


def transformers_clip(prefix: str) -> Shapes:
    dim, mlp = CLIP.dim, CLIP.dim_mlp
    shapes: Shapes = {
        "embeddings.class_embedding": (dim,),
        "embeddings.position_embedding.weight": (CLIP.num_tokens, dim),
        "embeddings.position_ids": (1, CLIP.num_tokens),
        "embeddings.patch_embedding.weight": (dim, 3, 14, 14),
        **api.affine("pre_layrnorm", dim),
        **api.affine("post_layernorm", dim),
    }
    for index in range(CLIP.num_layers + 1):
        layer = f"encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= api.affine(f"{layer}.self_attn.{part}", dim, dim)
        shapes |= {
            **api.affine(f"{layer}.layer_norm1", dim),
            **api.affine(f"{layer}.layer_norm2", dim),
            **api.affine(f"{layer}.mlp.fc1", mlp, dim),
            **api.affine(f"{layer}.mlp.fc2", dim, mlp),
        }
    return {f"{prefix}{name}": shape for name, shape in shapes.items()} | {
        "visual_projection.weight": (1024, dim)
    }


def filled_axes(shapes: Shapes) -> Shapes:
    """Drop axes of length one, which a layout may omit."""
    return {name: tuple(side for side in shape if side != 1) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_image_encoder_of_transformers(prefix: str) -> None:
    found = filled_axes(result(api.CLIP_TRANSFORMERS, transformers_clip(prefix)))
    expected = filled_axes(api.clip_tensors(CLIP))
    assert {name: found.get(name) for name in expected} == expected
    # the file holds the last block and the last norm too
    assert {re.sub(r"\.(\d+)\..*", r".\1", name) for name in found.keys() - expected.keys()} == {
        "visual.transformer.31",
        "visual.post_norm.weight",
        "visual.post_norm.bias",
    }


def test_queries_come_before_keys_and_values() -> None:
    found = mapped(api.CLIP_TRANSFORMERS, transformers_clip(""))
    assert found is not None
    layer = "encoder.layers.0.self_attn"
    assert found.stored["visual.transformer.0.attn.to_qkv.weight"] == tuple(
        f"{layer}.{part}_proj.weight" for part in "qkv"
    )


@pytest.mark.parametrize(
    ("key_map", "expected"),
    [
        *((api.DIT_DIFFUSERS, api.dit_tensors(arch)) for arch in DITS.values()),
        (api.VAE_DIFFUSERS, api.vae_tensors(VAE)),
        (api.UMT5_TRANSFORMERS, api.umt5_tensors(UMT5)),
    ],
)
def test_official_names_are_not_taken_for_others(key_map: KeyMap, expected: Shapes) -> None:
    """A map may keep or drop an official name, but not convert it to another official one."""
    found = mapped(key_map, expected)
    if found is not None:
        changed = {new for new, (old, *_) in found.stored.items() if new != old}
        assert not changed & expected.keys()


def test_no_torch() -> None:
    code = "import sys, lightx2v_wan21.key_maps; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
