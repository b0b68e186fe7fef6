"""A tiny Wan2.1 checkpoint with random weights, in the official layout: for tests and demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from lightx2v_wan21.architecture import (
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    clip_tensors,
    dit_tensors,
    tae_tensors,
    umt5_tensors,
    vae_tensors,
)

_TEXT_DIM = 64
#: sizes of a task's network in addition to those of t2v
_BRANCHES: Mapping[str, Mapping[str, Any]] = {
    "t2v": {},
    "i2v": {"image_dim": 80},
    "flf2v": {"image_dim": 80, "image_positions": 514},
    "vace": {"vace_layers": (0,)},
}
_PIECES = "▁ a e i o u s t r n the ing er on red fox runs snow field cat dog sea city night light over in of".split()


def write_tiny(folder: Path, seed: int = 0, task: str = "t2v") -> None:
    """Write a tiny model of about 5 MB.

    Files: config.json, two shards with an index, text encoder, tokenizer, VAE and tiny VAE, and an image encoder for
    the tasks ``i2v`` and ``flf2v``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    dit = DitArchitecture(
        dim=64,
        ffn_dim=128,
        num_heads=2,
        num_layers=2,
        in_dim=36 if task in ("i2v", "flf2v") else 16,
        out_dim=16,
        text_dim=_TEXT_DIM,
        **_BRANCHES[task],
    )
    _write_config(folder, dit, task)
    _write_shards(folder, random_tensors(dit_tensors(dit), generator))
    tokenizer = tiny_tokenizer()
    (folder / "google" / "umt5-xxl").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "google" / "umt5-xxl" / "tokenizer.json"))
    text = Umt5Architecture(
        vocab_size=tokenizer.get_vocab_size(),
        dim=_TEXT_DIM,
        dim_attn=64,
        dim_ffn=96,
        num_heads=2,
        num_layers=2,
    )
    encoder = {
        name: tensor.bfloat16() for name, tensor in random_tensors(umt5_tensors(text), generator).items()
    }
    torch.save(encoder, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    vae = VaeArchitecture(dim=8, dec_dim=8)
    torch.save(random_tensors(vae_tensors(vae), generator), folder / "Wan2.1_VAE.pth")
    tiny = TaeArchitecture(
        enc_dim=8, dec_dims=(16, 12, 8, 8), z_dim=16, image_channels=3, grow_rows=(16, 24, 16)
    )
    torch.save(random_tensors(tae_tensors(tiny), generator), folder / "taew2_1.pth")
    if dit.image_dim:
        clip = ClipArchitecture(dim=dit.image_dim, dim_mlp=160, num_layers=3)  # the last block is not used
        visual = {
            name: tensor.half() for name, tensor in random_tensors(clip_tensors(clip), generator).items()
        }
        torch.save(visual, folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")


def random_tensors(tensors: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Generate weights that keep activations near one: norms around 1, the rest scaled by their fan-in."""
    weights = {}
    for name, shape in tensors.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm.weight")) or ".norm" in name[-14:]:
            weights[name] = 1 + 0.1 * noise if not name.endswith("bias") else 0.1 * noise
        elif len(shape) == 1:
            weights[name] = 0.1 * noise
        else:
            weights[name] = noise / max(prod(shape[1:]), 1) ** 0.5
    return weights


def _write_config(folder: Path, dit: DitArchitecture, task: str) -> None:
    config: dict[str, Any] = {
        "_class_name": "VaceWanModel" if dit.vace_layers else "WanModel",
        "model_type": task,
        "dim": dit.dim,
        "ffn_dim": dit.ffn_dim,
        "freq_dim": dit.freq_dim,
        "in_dim": dit.in_dim,
        "out_dim": dit.out_dim,
        "num_heads": dit.num_heads,
        "num_layers": dit.num_layers,
        "text_len": dit.text_len,
        "eps": dit.eps,
    }
    if dit.vace_layers:
        config |= {"vace_layers": list(dit.vace_layers), "vace_in_dim": dit.vace_in_dim}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    names = sorted(tensors)
    shards = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, part in enumerate(shards, start=1):
        file = f"diffusion_pytorch_model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def tiny_tokenizer() -> Tokenizer:
    """Build a unigram tokenizer with byte fallback, so that it accepts any text."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(piece, -4.0 - 0.01 * i) for i, piece in enumerate(_PIECES)]
    pieces += [("▁" + piece, -3.0 - 0.01 * i) for i, piece in enumerate(_PIECES[1:])]
    byte_pieces = [(f"<0x{value:02X}>", -9.0) for value in range(256)]
    tokenizer = Tokenizer(models.Unigram(specials + pieces + byte_pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return tokenizer
