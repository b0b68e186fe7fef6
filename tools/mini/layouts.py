"""Write trained networks as folders in the official layouts, for the runtime."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

import networks
from lightx2v_core.runtime.video import write_bytes
from lightx2v_wan21.api import DitArchitecture

VAE_FILE = "Wan2.1_VAE.pth"
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
NETWORK_FILE = "diffusion_pytorch_model.safetensors"
#: names of the folders in ``WORK/checkpoints``
T2V, I2V, EXPERTS, DISTILLED = "t2v", "i2v", "experts", "t2v-4step"
DISTILLED_FILE = "wan2.1_t2v_mini_distill_4step.safetensors"
LORA_FILE = "framed.safetensors"


def write_encoders(folder: Path, vae: Path, text: Mapping[str, Tensor]) -> None:
    """Write the VAE, the text encoder (bfloat16, as in its file name) and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(vae, folder / VAE_FILE)
    _write_pickled(folder / TEXT_FILE, {name: tensor.bfloat16() for name, tensor in text.items()})
    write_bytes(folder / "google" / "umt5-xxl" / "tokenizer.json", networks.tokenizer().to_str().encode())


def write_clip(folder: Path, tensors: Mapping[str, Tensor], unused: Mapping[str, Tensor]) -> None:
    """Write the image encoder (float16), with the unused last block that every official file has."""
    visual = {name: tensor.half() for name, tensor in {**unused, **tensors}.items()}
    _write_pickled(folder / CLIP_FILE, visual)


def write_network(
    folder: Path, arch: DitArchitecture, tensors: Mapping[str, Tensor], *, task: str, file: str = NETWORK_FILE
) -> None:
    """Write a transformer (bfloat16) and its ``config.json``."""
    fields = ("dim", "ffn_dim", "freq_dim", "in_dim", "out_dim", "num_heads", "num_layers", "text_len", "eps")
    config = {
        "_class_name": "WanModel",
        "model_type": task,
        **{name: getattr(arch, name) for name in fields},
    }
    write_bytes(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_safetensors(folder / file, {name: tensor.bfloat16() for name, tensor in tensors.items()})


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    write_bytes(path, data)


def _write_pickled(path: Path, tensors: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, buffer)
    write_bytes(path, buffer.getvalue())
