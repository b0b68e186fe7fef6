"""The reference LoRA files, and names of real ones, against the networks of the installed plugins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from lightx2v_core.builtin.safetensors_file import read_header
from lightx2v_core.lora.matching import match
from lightx2v_core.lora.recognition import is_lora
from lightx2v_core.spec.tensors import Header, TensorInfo
from lightx2v_wan21.api import DIT_DIFFUSERS, DitArchitecture, dit_tensors

FILES = {
    "lora_ab_diffusion_model": 20, "lora_down_up_alpha": 20, "kohya_lora_unet": 20, "lightx2v_diff": 69,
    "peft_default": 8, "diffusers_names": 20,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_key_of_the_reference_files_is_matched(name: str, golden: Callable[[str], Path]) -> None:
    folder = golden("lora_wan21_t2v")
    network = read_header(folder / "ckpt" / "diffusion_pytorch_model.safetensors")
    lora = read_header(folder / "loras" / f"{name}.safetensors")
    assert is_lora(lora)
    assert not is_lora(network)
    found = match(lora, network.shapes, (DIT_DIFFUSERS,))
    assert found.whole
    assert len({change.target for change in found.changes}) == FILES[name]
    assert len(found.matched) == len(lora)


def test_every_tensor_of_an_image_network_is_found_by_its_flat_and_dotted_name() -> None:
    arch = DitArchitecture(
        dim=32, ffn_dim=48, num_heads=2, num_layers=12, in_dim=36, out_dim=16, image_dim=24, image_positions=5,
        vace_layers=(0, 5),
    )  # fmt: skip
    expected = dit_tensors(arch)
    for name, shape in expected.items():
        base, _, parameter = name.rpartition(".")
        suffix = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}.get(parameter)
        key = f"{name}.diff" if suffix is None else f"{base}.{suffix}"
        flat = key.replace(".", "_").removesuffix(f"_{suffix or 'diff'}")
        for stored in (f"diffusion_model.{key}", f"lora_unet_{flat}.{suffix or 'diff'}"):
            info = TensorInfo(name=stored, shape=shape, dtype="float32", file=Path("x.safetensors"))
            found = match(Header(tensors={stored: info}), expected, (DIT_DIFFUSERS,))
            assert [change.target for change in found.changes] == [name], stored


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.7.attn1.to_q", "blocks.7.self_attn.q"), ("blocks.7.attn2.to_out.0", "blocks.7.cross_attn.o"),
        ("blocks.7.attn2.add_k_proj", "blocks.7.cross_attn.k_img"), ("blocks.7.ffn.net.0.proj", "blocks.7.ffn.0"),
        ("blocks.7.ffn.net.2", "blocks.7.ffn.2"), ("proj_out", "head.head"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "style", ["transformer.{}", "base_model.model.{}", "lora_unet_{}", "lora_transformer_{}"]
)
def test_names_of_diffusers_dotted_and_flat(theirs: str, ours: str, style: str) -> None:
    arch = DitArchitecture(
        dim=32, ffn_dim=48, num_heads=2, num_layers=8, in_dim=36, out_dim=16, image_dim=24
    )  # fmt: skip
    expected = dit_tensors(arch)
    rows, columns = expected[f"{ours}.weight"]
    base = style.format(theirs.replace(".", "_") if style.startswith("lora") else theirs)
    shapes = {f"{base}.lora_down.weight": (4, columns), f"{base}.lora_up.weight": (rows, 4)}
    infos = {
        name: TensorInfo(name=name, shape=shape, dtype="float32", file=Path("x.safetensors"))
        for name, shape in shapes.items()
    }
    found = match(Header(tensors=infos), expected, (DIT_DIFFUSERS,))
    assert [change.target for change in found.changes] == [f"{ours}.weight"]


#: prefixes that LoRA files of Wan have in the world, and the networks that they are of: ComfyUI's and kijai's own, of
#: diffusers, PEFT, VideoX-Fun (two underscores), musubi, kohya, LyCORIS, ai-toolkit, DiffSynth and torch's wrappers
PREFIXES = [
    "", "diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", "dit.", "unet.",
    "base_model.model.diffusion_model.", "diffusion_model.transformer_1.", "transformer_1.", "module.", "_orig_mod.",
    "transformer._orig_mod.", "generator.", "net.", "lora_unet.", "high_noise_model.", "lora_unet_", "lora_unet__",
    "lora_unet___", "lora_transformer_", "lora_transformer__", "lora_dit_", "lycoris_", "lycoris__",
    "lora_unet_diffusion_model_", "lora_transformer_1_", "lora_unet_model_diffusion_model_", "flat",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", ["ours", "theirs"])
def test_prefixes_of_the_world(prefix: str, names: str) -> None:
    arch = DitArchitecture(dim=32, ffn_dim=48, num_heads=2, num_layers=12, in_dim=16, out_dim=16)
    expected = dit_tensors(arch)
    modules = {
        "blocks.0.self_attn.q": "blocks.0.attn1.to_q", "blocks.11.self_attn.o": "blocks.11.attn1.to_out.0",
        "blocks.1.cross_attn.k": "blocks.1.attn2.to_k", "blocks.1.ffn.0": "blocks.1.ffn.net.0.proj",
        "blocks.10.ffn.2": "blocks.10.ffn.net.2", "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "time_projection.1": "condition_embedder.time_proj", "head.head": "proj_out",
    }  # fmt: skip
    infos = {}
    for ours, theirs in modules.items():
        name = ours if names == "ours" else theirs
        base = f"{prefix}{name}"
        if prefix == "flat" or (prefix.endswith("_") and not prefix.startswith("_")):
            base = prefix.removeprefix("flat") + name.replace(".", "_")
        rows, columns = expected[f"{ours}.weight"]
        for part, shape in (("down", (4, columns)), ("up", (rows, 4))):
            key = f"{base}.lora_{part}.weight"
            infos[key] = TensorInfo(name=key, shape=shape, dtype="float32", file=Path("x.safetensors"))
    found = match(Header(tensors=infos), expected, (DIT_DIFFUSERS,))
    assert found.whole
    assert {change.target for change in found.changes} == {f"{name}.weight" for name in modules}
    assert (found.placed, found.pairs) == (len(modules), len(modules))


@pytest.mark.parametrize(
    "base",
    ["control.blocks.0.self_attn.q", "vae.blocks.0.self_attn.q", "lora_te_blocks_0_self_attn_q",
     "lora_te1__blocks_0_ffn_0",
     "text_encoder.blocks.0.self_attn.q", "te.blocks.0.ffn.0", "t5_blocks_0_ffn_0", "blocks.12.self_attn.q"],
)  # fmt: skip
def test_names_of_other_networks_are_not_taken_for_this_one(base: str) -> None:
    arch = DitArchitecture(dim=32, ffn_dim=48, num_heads=2, num_layers=12, in_dim=16, out_dim=16)
    infos = {
        key: TensorInfo(name=key, shape=shape, dtype="float32", file=Path("x.safetensors"))
        for key, shape in ((f"{base}.lora_down.weight", (4, 32)), (f"{base}.lora_up.weight", (32, 4)))
    }
    assert not match(Header(tensors=infos), dit_tensors(arch), (DIT_DIFFUSERS,)).changes


def test_a_file_for_image_to_video_of_14b_is_for_another_model_at_1_3b_and_fits_text_to_video_of_14b() -> (
    None
):
    """The whole of LightX2V's distilled files: pairs of every matrix, differences of everything else."""
    sizes = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
    big = dit_tensors(DitArchitecture(in_dim=36, image_dim=1280, **sizes))
    infos = {}
    for name, shape in big.items():
        base, _, parameter = name.rpartition(".")
        parts = {
            f"{base}.diff{'' if parameter == 'weight' else '_b' if parameter == 'bias' else '_m'}": shape
        }
        if parameter == "weight" and len(shape) == 2:
            parts = {f"{base}.lora_down.weight": (64, shape[1]), f"{base}.lora_up.weight": (shape[0], 64)}
        for part, own in parts.items():
            key = f"diffusion_model.{part}"
            infos[key] = TensorInfo(name=key, shape=own, dtype="bfloat16", file=Path("x.safetensors"))
    small = DitArchitecture(
        dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_dim=16, out_dim=16
    )  # fmt: skip
    lora = Header(tensors=infos)
    found = match(lora, dit_tensors(small), (DIT_DIFFUSERS,))
    assert (len(lora), len(found.matched), found.placed, found.pairs, found.foreign) == (
        1791,
        1,
        0,
        488,
        True,
    )
    found = match(lora, dit_tensors(DitArchitecture(in_dim=16, **sizes)), (DIT_DIFFUSERS,))
    assert (found.placed, found.pairs, found.foreign, found.whole) == (406, 488, False, False)
    assert match(lora, big, (DIT_DIFFUSERS,)).whole
