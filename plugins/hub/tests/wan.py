"""The repositories that the guides name, with tiny networks instead of the real ones.

Names follow the two guides and the repositories on the hub. Quantized files have int8 and fp8 block weights with
scales, so that they are recognized as quantized.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightx2v_core.testing.hub import folder_files

T5 = "models_t5_umt5-xxl-enc"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
_LINEAR = re.compile(r"(blocks|transformer)\.\d+\.(self_attn|cross_attn|ffn|attn|mlp)\.\S+\.weight$")
Repositories = dict[str, dict[str, bytes | Path]]


def quantized(tensors: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Quantize block weights to ``int8`` or ``fp8`` with per-channel scales; ``fp8-comfyui``: per-tensor scales."""
    import torch

    stored: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if not _LINEAR.search(name) or tensor.ndim != 2:
            stored[name] = tensor.bfloat16()
            continue
        comfyui = precision.endswith("comfyui")
        largest = tensor.abs().amax() if comfyui else tensor.abs().amax(dim=1, keepdim=True)
        top, dtype = (127, torch.int8) if precision == "int8" else (448, torch.float8_e4m3fn)
        scale = largest.clamp(min=1e-5) / top
        scaled = tensor / scale
        stored[name] = (scaled.round() if precision == "int8" else scaled).to(dtype)
        stored[name.removesuffix("weight") + "scale_weight" if comfyui else f"{name}_scale"] = scale
    if precision.endswith("comfyui"):
        stored["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return stored


def write_repositories(folder: Path) -> Repositories:
    """Write every repository below ``folder``; returns the argument of ``serve_hub``."""
    from safetensors.torch import load_file, save_file

    def network(place: Path) -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for file in sorted(place.glob("diffusion_pytorch_model*.safetensors")):
            tensors |= load_file(file)
        return tensors

    def save(tensors: Mapping[str, Any], repo: str, name: str, precision: str = "original") -> None:
        path = folder / repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if precision == "original":
            save_file({key: tensor.bfloat16() for key, tensor in tensors.items()}, path)
        else:
            save_file(quantized(tensors, precision), path)

    _write_official(folder)
    for task, size, stem in (
        ("i2v", "-480P", "i2v_480p"),
        ("i2v", "-720P", "i2v_720p"),
        ("t2v", "", "t2v_14b"),
    ):
        tensors = network(folder / f"Wan-AI/Wan2.1-{task.upper()}-14B{size}")
        for precision, name in {
            "original": "lightx2v_4step", "int8": "int8_lightx2v_4step", "fp8": "scaled_fp8_e4m3_lightx2v_4step",
            "fp8-comfyui": "scaled_fp8_e4m3_lightx2v_4step_comfyui",
        }.items():  # fmt: skip
            save(tensors, "lightx2v/Wan2.1-Distill-Models", f"wan2.1_{stem}_{name}.safetensors", precision)
    for expert in ("high_noise", "low_noise"):
        tensors = network(folder / f"Wan-AI/Wan2.2-I2V-A14B/{expert}_model")
        for precision, name in {
            "original": "lightx2v_4step", "int8": "int8_lightx2v_4step", "fp8": "scaled_fp8_e4m3_lightx2v_4step",
        }.items():  # fmt: skip
            name = f"wan2.2_i2v_A14b_{expert}_{name}.safetensors"
            save(tensors, "lightx2v/Wan2.2-Distill-Models", name, precision)
    base = folder / "Wan-AI/Wan2.1-I2V-14B-480P"
    for repo, mark, original in (
        ("Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v", "distill_", "distill_models"),
        ("Wan2.1-I2V-14B-480P-Lightx2v", "", "original"),
    ):
        _write_structured(base, folder / "lightx2v" / repo, network(base), mark, original)
    _write_loras(folder)
    for name in ("lighttaew2_1.safetensors", "lightvaew2_1.safetensors", "taew2_2.pth"):
        (folder / "lightx2v/Autoencoders" / name).write_bytes(b"a VAE called " + name.encode())
    owners = [place for place in folder.iterdir() if place.is_dir()]
    return {
        f"{owner.name}/{repo.name}": dict(folder_files(repo))
        for owner in owners
        for repo in sorted(owner.iterdir())
    }


def _write_official(folder: Path) -> None:
    from lightx2v_wan21.tiny import write_tiny
    from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_animate, write_tiny_ti2v

    tasks = {
        "T2V-1.3B": "t2v", "T2V-14B": "t2v", "I2V-14B-480P": "i2v", "I2V-14B-720P": "i2v",
        "FLF2V-14B-720P": "flf2v", "VACE-1.3B": "vace", "VACE-14B": "vace",
    }  # fmt: skip
    for seed, (name, task) in enumerate(tasks.items()):
        write_tiny(folder / f"Wan-AI/Wan2.1-{name}", seed, task)
    write_tiny_a14b(folder / "Wan-AI/Wan2.2-T2V-A14B", 11)
    write_tiny_a14b(folder / "Wan-AI/Wan2.2-I2V-A14B", 12, images=True)
    write_tiny_ti2v(folder / "Wan-AI/Wan2.2-TI2V-5B", 13)
    write_tiny_animate(folder / "Wan-AI/Wan2.2-Animate-14B", 14)
    parts = folder / "lightx2v/Autoencoders"
    parts.mkdir(parents=True)
    shutil.copy(folder / "Wan-AI/Wan2.1-T2V-1.3B/taew2_1.pth", parts)
    for place in (folder / "Wan-AI").iterdir():
        for tiny in (*place.glob("*taew2_*"), *place.glob("TINY")):
            tiny.unlink()  # the official repositories have none
        for name in ("README.md", "assets/logo.png", "examples/i2v_input.JPG", "google/umt5-xxl/spiece.model",
                     "xlm-roberta-large/tokenizer.json"):  # fmt: skip
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"not needed")
        if place.name.endswith("A14B"):
            (place / "configuration.json").write_text("{}")


def _write_structured(base: Path, place: Path, tensors: Mapping[str, Any], mark: str, original: str) -> None:
    import torch
    from safetensors.torch import save_file

    text = torch.load(base / f"{T5}-bf16.pth", weights_only=True)
    clip = torch.load(base / f"{CLIP}.pth", weights_only=True)
    for precision, sub in (("original", original), ("fp8", f"{mark}fp8"), ("int8", f"{mark}int8")):
        folder = place / sub
        folder.mkdir(parents=True)
        for name in ("config.json", "Wan2.1_VAE.pth"):
            (folder / name).write_bytes((base / name).read_bytes())
        (folder / "taew2_1.pth").write_bytes(b"a tiny VAE")
        if precision == "original":
            name = "distill_model.safetensors" if mark else "diffusion_pytorch_model.safetensors"
            save_file({key: tensor.bfloat16() for key, tensor in tensors.items()}, folder / name)
            torch.save(text, folder / f"{T5}-bf16.pth")
            torch.save(clip, folder / f"{CLIP}.pth")
            continue
        groups: dict[str, dict[str, Any]] = {}
        for key, tensor in quantized(tensors, precision).items():
            match = re.search(r"blocks\.(\d+)\.", key)
            groups.setdefault(f"block_{match[1]}" if match else "non_block", {})[key] = tensor
        for stem, group in groups.items():
            save_file(group, folder / f"{stem}.safetensors")
        for encoder, name in ((text, f"{T5}-{precision}"), (clip, f"clip-{precision}")):
            stored = quantized({key: tensor.float() for key, tensor in encoder.items()}, precision)
            torch.save(stored, folder / f"{name}.pth")
    if mark:
        lora = place / "loras/Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors"
        lora.parent.mkdir()
        _save_lora(lora)


def _write_loras(folder: Path) -> None:
    names = {
        "Wan2.1-Distill-Loras": (
            "wan2.1_i2v_lora_rank64_lightx2v_4step",
            "wan2.1_t2v_14b_lora_rank64_lightx2v_4step",
        ),
        "Wan2.2-Distill-Loras": tuple(
            f"wan2.2_{task}_A14b_{expert}_lora_rank64_lightx2v_4step_{date}"
            for task, date in (("i2v", 1022), ("t2v", 1217))
            for expert in ("high_noise", "low_noise")
        ),
    }
    for repo, files in names.items():
        for name in files:
            path = folder / "lightx2v" / repo / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            _save_lora(path)


def _save_lora(path: Path) -> None:
    """Build a LoRA of one layer, which all tiny networks have."""
    import torch
    from safetensors.torch import save_file

    layer = "diffusion_model.blocks.0.self_attn.q"
    pair = {f"{layer}.lora_down.weight": torch.ones(4, 64), f"{layer}.lora_up.weight": torch.ones(64, 4)}
    save_file(pair, path)
