"""A tiny model, and a LoRA file for it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_wan21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    folder = tmp_path_factory.mktemp("tiny") / "model"
    writer.write_tiny(folder, 0)
    return folder


@pytest.fixture(scope="session")
def lora(tiny_wan21: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    network = next(tiny_wan21.glob("diffusion_pytorch_model*.safetensors"))
    layer = next(name for name in load_file(network) if name.endswith("self_attn.q.weight"))
    rows, columns = load_file(network)[layer].shape
    stem = layer.removesuffix(".weight")
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, columns), f"{stem}.lora_B.weight": torch.ones(rows, 2)}
    save_file(tensors, path)
    return path
