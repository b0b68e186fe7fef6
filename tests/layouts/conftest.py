"""Tiny real checkpoints in every layout that users arrive with, all holding the same weights."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

Tensors = dict[str, "torch.Tensor"]
Arrange = Callable[[Path, str], Path]

DIT = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
VAE = "Wan2.1_VAE"

#: official name -> diffusers' name of the transformer, in the order in which they apply
TO_DIFFUSERS = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^head\.head\.", "proj_out."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
    (r"^(blocks\.\d+)\.norm3\.", r"\1.norm2."),
    (r"\.cross_attn\.([kv])_img\.", r".attn2.add_\1_proj."),
    (r"\.cross_attn\.norm_k_img\.", ".attn2.norm_added_k."),
    (r"\.self_attn\.([qkv])\.", r".attn1.to_\1."),
    (r"\.self_attn\.o\.", ".attn1.to_out.0."),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.cross_attn\.o\.", ".attn2.to_out.0."),
    (r"\.self_attn\.norm_", ".attn1.norm_"),
    (r"\.cross_attn\.norm_", ".attn2.norm_"),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
)
TO_TRANSFORMERS = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
     r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)  # fmt: skip


def renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> Tensors:
    out = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, text in rules:
            new = re.sub(pattern, text, new)
        out[new] = tensor
    assert len(out) == len(tensors)
    return out


def network(folder: Path) -> Tensors:
    found: Tensors = {}
    for file in sorted(folder.glob(f"{DIT}*.safetensors")):
        found |= load_file(file)
    return found


def drop_network(folder: Path) -> Tensors:
    """Take the network's files out of a folder; its tensors are returned."""
    found = network(folder)
    for file in folder.glob(f"{DIT}*"):
        file.unlink()
    return found


def pth(path: Path) -> Tensors:
    found: Tensors = torch.load(path, weights_only=True)
    return found


def save_blocks(folder: Path, tensors: Tensors) -> None:
    """A file for each block and one for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        match = re.search(r"blocks\.(\d+)\.", name)
        groups.setdefault(f"block_{match[1]}" if match else "non_block", {})[name] = tensor
    for stem, group in groups.items():
        save_file(group, folder / f"{stem}.safetensors")


def single(folder: Path) -> None:
    save_file(drop_network(folder), folder / "wan2.1_t2v_lightx2v_4step.safetensors")


def single_ordinary(folder: Path) -> None:
    save_file(drop_network(folder), folder / "my_wan.safetensors")


def half(folder: Path) -> None:
    tensors = {name: t.half().float().half() for name, t in drop_network(folder).items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def original(folder: Path) -> None:
    """Everything but the tokenizer in ``original``, the network by blocks."""
    place = folder / "original"
    save_blocks(place, drop_network(folder))
    for file in [*folder.glob("*.pth"), folder / "config.json"]:
        shutil.move(file, place / file.name)


def distill_models(folder: Path) -> None:
    place = folder / "distill_models"
    place.mkdir()
    save_file(drop_network(folder), place / "distill_model.safetensors")
    for file in [*folder.glob("*.pth"), folder / "config.json"]:
        shutil.move(file, place / file.name)


def legacy_pickle(folder: Path) -> None:
    torch.save(drop_network(folder), folder / "distill_model.pt")


def comfyui(folder: Path) -> None:
    tensors = {f"model.diffusion_model.{name}": t for name, t in drop_network(folder).items()}
    (folder / "diffusion_models").mkdir()
    (folder / "text_encoders").mkdir()
    (folder / "vae").mkdir()
    save_file(tensors, folder / "diffusion_models" / "wan2.1_t2v_fp32.safetensors")
    save_file(pth(folder / f"{VAE}.pth"), folder / "vae" / "wan_2.1_vae.safetensors")
    text = renamed(pth(folder / f"{T5}.pth"), TO_TRANSFORMERS)
    text["spiece_model"] = torch.zeros(9, dtype=torch.uint8)
    save_file(text, folder / "text_encoders" / "umt5_xxl_bf16.safetensors")
    shutil.move(folder / "config.json", folder / "diffusion_models" / "config.json")
    for name in (T5, VAE):
        (folder / f"{name}.pth").unlink()


def whole(folder: Path, network: str, text: str, vae: str, *, transformers: bool) -> None:
    """Network, text encoder and VAE in one file, each under a prefix."""
    encoder = pth(folder / f"{T5}.pth")
    parts = (
        (network, drop_network(folder)),
        (text, renamed(encoder, TO_TRANSFORMERS) if transformers else encoder),
        (vae, pth(folder / f"{VAE}.pth")),
    )
    tensors = {prefix + name: tensor for prefix, held in parts for name, tensor in held.items()}
    tensors["text_encoders.umt5xxl.logit_scale"] = torch.zeros(1)
    save_file(tensors, folder / "wan2.2-rapid-aio.safetensors")
    for name in (T5, VAE):
        (folder / f"{name}.pth").unlink()


def all_in_one(folder: Path) -> None:
    whole(folder, "model.diffusion_model.", "text_encoders.umt5xxl.transformer.", "vae.", transformers=True)


def all_in_one_of_old(folder: Path) -> None:
    whole(
        folder,
        "model.diffusion_model.",
        "cond_stage_model.transformer.",
        "first_stage_model.",
        transformers=False,
    )


def embedding_of_the_encoder(folder: Path) -> None:
    """A text encoder that was saved without the name that its embedding shares."""
    single_ordinary(folder)
    text = renamed(pth(folder / f"{T5}.pth"), TO_TRANSFORMERS)
    text["encoder.embed_tokens.weight"] = text.pop("shared.weight")
    save_file(text, folder / "umt5_xxl.safetensors")
    (folder / f"{T5}.pth").unlink()


def diffusers(folder: Path) -> None:
    tensors = renamed(drop_network(folder), TO_DIFFUSERS)
    place = folder / "transformer"
    place.mkdir()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{DIT}-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, place / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (place / f"{DIT}.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    translated = {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": config["num_heads"],
        "attention_head_dim": config["dim"] // config["num_heads"],
        "in_channels": config["in_dim"],
        "out_channels": config["out_dim"],
        **{key: config[key] for key in ("ffn_dim", "freq_dim", "num_layers", "eps")},
        "text_dim": tensors["condition_embedder.text_embedder.linear_1.weight"].shape[1],
        "patch_size": [1, 2, 2],
    }
    (place / "config.json").write_text(json.dumps(translated))
    (folder / "text_encoder").mkdir()
    text = renamed(pth(folder / f"{T5}.pth"), TO_TRANSFORMERS)
    save_file(text, folder / "text_encoder" / "model.safetensors")
    (folder / f"{T5}.pth").unlink()
    shutil.move(folder / "google" / "umt5-xxl", folder / "tokenizer")
    (folder / "model_index.json").write_text("{}")


def official(folder: Path) -> None:
    """As it is."""


LAYOUTS: Mapping[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        official, single, single_ordinary, half, original, distill_models, legacy_pickle, comfyui, diffusers,
        all_in_one, all_in_one_of_old, embedding_of_the_encoder,
    )
}  # fmt: skip


@pytest.fixture(scope="session")
def guides() -> ModuleType:
    """Writers of the guides' folders at their real sizes."""
    pytest.importorskip("lightx2v_wan22", reason="lightx2v-wan22 is not installed")
    spec = importlib.util.spec_from_file_location("guides", Path(__file__).with_name("guides.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan2.1 text-to-video checkpoint, made once."""
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="lightx2v-wan21 is not installed")
    folder: Path = tmp_path_factory.mktemp("layouts") / "Wan-tiny"
    writer.write_tiny(folder, 0)
    return folder


@pytest.fixture(scope="session")
def arrange_into(tiny_wan: Path) -> Arrange:
    """``arrange_into(folder, layout)``: the tiny checkpoint in a layout, in a new folder."""

    def make(folder: Path, layout: str) -> Path:
        shutil.copytree(tiny_wan, folder)
        LAYOUTS[layout](folder)
        return folder

    return make


@pytest.fixture
def arrange(arrange_into: Arrange, tmp_path: Path) -> Callable[[str], Path]:
    """``arrange(layout)``: the tiny checkpoint in a layout."""

    return lambda layout: arrange_into(tmp_path / "model", layout)
