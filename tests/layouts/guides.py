"""The folders of the guides at their real sizes: every header and no data. Needs the model plugins."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from lightx2v_core.testing.headers import write_sparse_safetensors


def _real() -> ModuleType:
    file = Path(__file__).parent.with_name("real_headers.py")
    spec = importlib.util.spec_from_file_location("real_headers", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REAL = _real()
Tensors = Mapping[str, tuple[int, ...]]

I2V, A14B = "Wan2.1-I2V-14B-480P", "Wan2.2-I2V-A14B"
#: quantized layers: the linear layers of the blocks
_LINEAR = re.compile(r"(^|\.)blocks\.\d+\.(self_attn|cross_attn|attn|ffn)\.[\w.]+\.weight$")
KINDS = {"fp8": "F8_E4M3", "int8": "I8"}


def quantized(
    tensors: Tensors, kind: str, *, comfyui: bool = False
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The tensors of a quantized file, and their dtypes: a scale for each output channel, or ComfyUI's one scale and
    mark."""
    found: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for name, shape in tensors.items():
        found[name] = shape
        if _LINEAR.search(name) and len(shape) == 2:
            dtypes[name] = KINDS[kind]
            layer = name.removesuffix(".weight")
            scale = f"{layer}.scale_weight" if comfyui else f"{name}_scale"
            found[scale], dtypes[scale] = (() if comfyui else (shape[0], 1)), "F32"
    if comfyui:
        found["scaled_fp8"], dtypes["scaled_fp8"] = (2,), KINDS[kind]
    return found, dtypes


def write_network(
    path: Path, tensors: Tensors, kind: str, *, comfyui: bool = False, prefix: str = ""
) -> None:
    """A single file in ``original`` (bfloat16), ``fp8`` or ``int8``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dtypes: dict[str, str] = {}
    if kind != "original":
        tensors, dtypes = quantized(tensors, kind, comfyui=comfyui)
    if prefix:
        tensors = {prefix + name: shape for name, shape in tensors.items()}
        dtypes = {prefix + name: dtype for name, dtype in dtypes.items()}
    write_sparse_safetensors(path, tensors, "BF16", dtypes=dtypes)


def write_blocks(folder: Path, tensors: Tensors, kind: str) -> None:
    """A file for each block and one for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    dtypes: dict[str, str] = {}
    if kind != "original":
        tensors, dtypes = quantized(tensors, kind)
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in tensors.items():
        match = re.search(r"blocks\.(\d+)\.", name)
        groups.setdefault(f"block_{match[1]}" if match else "non_block", {})[name] = shape
    for stem, group in groups.items():
        write_sparse_safetensors(folder / f"{stem}.safetensors", group, "BF16", dtypes=dtypes)


def official(folder: Path, name: str) -> Path:
    REAL.write_model(folder, name)
    return folder


def without_network(folder: Path, name: str) -> Path:
    """The official folder without its networks: what the guides ask to put beside a single file."""
    REAL.write_model(folder, name)
    for file in folder.glob("**/diffusion_pytorch_model*"):
        file.unlink()
    return folder


def single_files(folder: Path, *kinds: str) -> Path:
    """Format 2, Wan2.1: one or several precisions side by side."""
    without_network(folder, I2V)
    names = {"original": "", "fp8": "scaled_fp8_e4m3_", "int8": "int8_"}
    for kind in kinds:
        file = folder / f"wan2.1_i2v_480p_{names[kind]}lightx2v_4step.safetensors"
        write_network(file, REAL.network_tensors(I2V), kind)
    return folder


def pairs(folder: Path, *kinds: str) -> Path:
    """Format 2, Wan2.2: a folder for each expert, with one or several precisions."""
    without_network(folder, A14B)
    names = {"original": "", "fp8": "scaled_fp8_e4m3_", "int8": "int8_"}
    for expert in ("high_noise", "low_noise"):
        for kind in kinds:
            file = (
                folder
                / f"{expert}_model"
                / f"wan2.2_i2v_A14b_{expert}_{names[kind]}lightx2v_4step.safetensors"
            )
            write_network(file, REAL.network_tensors(A14B), kind)
    return folder


def structured(folder: Path, *places: str) -> Path:
    """The structured folders: the components of each precision in a folder of their own, the network by blocks."""
    source = without_network(folder / "official", I2V)
    for place in places:
        where, kind = folder / place, next((k for k in KINDS if k in place), "original")
        where.mkdir()
        if place == "distill_models":
            write_network(where / "distill_model.safetensors", REAL.network_tensors(I2V), kind)
        else:
            write_blocks(where, REAL.network_tensors(I2V), kind)
        for file in (
            "Wan2.1_VAE.pth",
            "config.json",
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        ):
            (where / file).hardlink_to(source / file)
        text = where / "models_t5_umt5-xxl-enc-bf16.pth"
        if kind == "original":
            text.hardlink_to(source / text.name)
        else:
            name = where / f"models_t5_umt5-xxl-enc-{kind}.safetensors"
            write_network(name, REAL.text_tensors(), kind)
    shutil.move(source / "google", folder / "google")
    shutil.rmtree(source)
    return folder


def comfyui(folder: Path) -> Path:
    """A models folder of ComfyUI with fp8 files under its own names."""
    source = without_network(folder / "official", "Wan2.1-T2V-14B")
    network = folder / "diffusion_models" / "wan2.1_t2v_14B_fp8_scaled.safetensors"
    write_network(
        network, REAL.network_tensors("Wan2.1-T2V-14B"), "fp8", comfyui=True, prefix="model.diffusion_model."
    )
    text = folder / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
    write_network(text, REAL.text_tensors(), "fp8", comfyui=True)
    (folder / "vae").mkdir()
    shutil.move(source / "Wan2.1_VAE.pth", folder / "vae" / "Wan2.1_VAE.pth")
    shutil.move(source / "google", folder / "google")
    shutil.rmtree(source)
    return folder


def lora(path: Path, name: str, rank: int = 64) -> Path:
    """A distillation LoRA as LightX2V publishes it: pairs for the block linears, differences for the rest of them."""
    tensors: dict[str, tuple[int, ...]] = {}
    for key, shape in REAL.network_tensors(name).items():
        if _LINEAR.search(key) and len(shape) == 2:
            base = "diffusion_model." + key.removesuffix(".weight")
            tensors[f"{base}.lora_down.weight"] = (rank, shape[1])
            tensors[f"{base}.lora_up.weight"] = (shape[0], rank)
            tensors[f"{base}.diff_b"] = (shape[0],)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sparse_safetensors(path, tensors, "BF16")
    return path


__all__ = ["A14B", "I2V", "comfyui", "lora", "official", "pairs", "single_files", "structured"]
