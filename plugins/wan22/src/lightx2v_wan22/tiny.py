"""Tiny Wan2.2 checkpoints with random weights, in the official layouts: for tests and demonstrations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from lightx2v_wan21.api import (
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    clip_tensors,
    dit_tensors,
    random_tensors,
    tae_tensors,
    tiny_tokenizer,
    umt5_tensors,
    vae_tensors,
)
from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_tensors
from lightx2v_wan22.vae22.architecture import LATENT_CHANNELS, vae22_tensors

_TEXT_DIM = 64
_DIT: Mapping[str, Any] = {
    "dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 2, "in_dim": 16, "out_dim": 16, "text_dim": _TEXT_DIM
}  # fmt: skip
_CLIP = ClipArchitecture(dim=80, dim_mlp=160, num_layers=3)


def write_tiny_a14b(folder: Path, seed: int = 0, *, images: bool = False) -> None:
    """Write two experts in folders of their own, text encoder, tokenizer, Wan2.1 VAE and tiny VAE.

    With ``images`` the experts are for i2v and flf2v, else for t2v.
    """
    generator = torch.Generator().manual_seed(seed)
    dit = DitArchitecture(**{**_DIT, "in_dim": 36 if images else 16})
    for expert in ("high_noise_model", "low_noise_model"):
        tensors = random_tensors(dit_tensors(dit), generator)
        _write_network(folder / expert, dit, tensors, model_type="i2v" if images else "t2v")
    _write_text_encoder(folder, generator)
    _write_vae21(folder, generator)
    _write_tiny_vae(folder / "taew2_1.pth", 16, 3, generator)


def write_tiny_ti2v(folder: Path, seed: int = 0) -> None:
    """Write the network, text encoder, tokenizer, Wan2.2 VAE and tiny VAE."""
    generator = torch.Generator().manual_seed(seed)
    dit = DitArchitecture(**{**_DIT, "in_dim": LATENT_CHANNELS, "out_dim": LATENT_CHANNELS})
    _write_network(folder, dit, random_tensors(dit_tensors(dit), generator), model_type="ti2v")
    _write_text_encoder(folder, generator)
    vae = VaeArchitecture(dim=4, dec_dim=4, z_dim=LATENT_CHANNELS)
    torch.save(random_tensors(vae22_tensors(vae), generator), folder / "Wan2.2_VAE.pth")
    _write_tiny_vae(folder / "taew2_2.pth", LATENT_CHANNELS, 12, generator)


def write_tiny_animate(folder: Path, seed: int = 0) -> None:
    """Write the network, text encoder, tokenizer, image encoder and Wan2.1 VAE. Faces are 32x32 pixels."""
    generator = torch.Generator().manual_seed(seed)
    arch = AnimateArchitecture(
        dit=DitArchitecture(**{**_DIT, "in_dim": 36, "num_layers": 6, "image_dim": _CLIP.dim}),
        motion_channels=(8, 8, 8, 8),
        style_dim=32,
        motion_dim=48,
        face_dim=32,
        face_heads=4,
    )
    tensors = random_tensors(animate_tensors(arch), generator)
    ramp = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for name, tensor in tensors.items():
        if name.endswith("kernel"):
            tensors[name] = torch.outer(ramp, ramp) / 64
        elif name.startswith("motion_encoder") and name.endswith("weight"):
            # stored with unit variance, see ``animate/motion.py``
            tensors[name] = tensor / tensor.std()
    _write_network(folder, arch.dit, tensors, class_name="WanAnimateModel", use_img_emb=True)
    _write_text_encoder(folder, generator)
    _write_vae21(folder, generator)
    visual = {name: tensor.half() for name, tensor in random_tensors(clip_tensors(_CLIP), generator).items()}
    torch.save(visual, folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")


def _write_network(
    folder: Path,
    dit: DitArchitecture,
    tensors: Mapping[str, Tensor],
    *,
    class_name: str = "WanModel",
    **more: Any,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fields = ("dim", "ffn_dim", "freq_dim", "in_dim", "out_dim", "num_heads", "num_layers", "text_len", "eps")
    config = {"_class_name": class_name, **{name: getattr(dit, name) for name in fields}, **more}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(dict(tensors), folder / "diffusion_pytorch_model.safetensors")


def _write_text_encoder(folder: Path, generator: Generator) -> None:
    tokenizer = tiny_tokenizer()
    (folder / "google" / "umt5-xxl").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "google" / "umt5-xxl" / "tokenizer.json"))
    arch = Umt5Architecture(
        vocab_size=tokenizer.get_vocab_size(),
        dim=_TEXT_DIM,
        dim_attn=64,
        dim_ffn=96,
        num_heads=2,
        num_layers=2,
    )
    tensors = random_tensors(umt5_tensors(arch), generator)
    encoder = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    torch.save(encoder, folder / "models_t5_umt5-xxl-enc-bf16.pth")


def _write_vae21(folder: Path, generator: Generator) -> None:
    vae = VaeArchitecture(dim=8, dec_dim=8)
    torch.save(random_tensors(vae_tensors(vae), generator), folder / "Wan2.1_VAE.pth")


def _write_tiny_vae(file: Path, z_dim: int, image_channels: int, generator: Generator) -> None:
    arch = TaeArchitecture(
        enc_dim=8,
        dec_dims=(16, 12, 8, 8),
        z_dim=z_dim,
        image_channels=image_channels,
        grow_rows=(16, 24, 16),
    )
    torch.save(random_tensors(tae_tensors(arch), generator), file)
