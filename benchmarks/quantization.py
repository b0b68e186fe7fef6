"""Cost and savings of quantized weights: size, load time, peak memory, step time, output error.

    python benchmarks/quantization.py [--dim 512] [--layers 6] [--threads 2] [--dtype float32]

A Wan2.1 transformer with random weights is written once, and converted for each scheme. Each row is a separate process:
the network is loaded by ``lightx2v_core.load``, run once for warm-up and then several times on the same inputs (the
shortest time counts). The error is relative to the output of the plain float32 network. Needs the Wan2.1 plugin.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: row -> target format of the conversion, and the quantizer for the run
SCHEMES: dict[str, tuple[str | None, str | None]] = {
    "float32": (None, None),
    "int8, dequant": ("int8", "dequant"),
    "int8, int8-torch": ("int8", "int8-torch"),
    "int8, int8-torchao": ("int8", "int8-torchao"),
    "int8, int8-vllm": ("int8", "int8-vllm"),
    "fp8, dequant": ("fp8", "dequant"),
    "fp8, fp8-torch": ("fp8", "fp8-torch"),
    "fp8, fp8-torchao": ("fp8", "fp8-torchao"),
    "fp8 per tensor, dequant": ("fp8-tensor", "dequant"),
    "fp8 blocks, dequant": ("fp8-block128", "dequant"),
    # GGUF files are not written here: these rows pack weights on load, to the same bytes
    "gguf-q8_0, packed on load": (None, "gguf:gguf-q8_0"),
    "gguf-q5_0, packed on load": (None, "gguf:gguf-q5_0"),
    "gguf-q4_0, packed on load": (None, "gguf:gguf-q4_0"),
}
#: latent frames, height and width: tokens are a quarter of their product
LATENT = (3, 32, 32)


def write_model(folder: Path, dim: int, layers: int) -> None:
    """Write a folder with a network of ``layers`` blocks, and the tiny text encoder and VAE."""
    import torch
    from safetensors.torch import save_file

    from lightx2v_wan21.api import DitArchitecture, dit_tensors
    from lightx2v_wan21.tiny import random_tensors, write_tiny

    write_tiny(folder, 0)
    for file in folder.glob("diffusion_pytorch_model*"):
        file.unlink()
    arch = DitArchitecture(
        dim=dim, ffn_dim=4 * dim, num_heads=dim // 128, num_layers=layers, in_dim=16, out_dim=16, text_dim=64
    )
    tensors = random_tensors(dit_tensors(arch), torch.Generator().manual_seed(0))
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"dim": dim, "ffn_dim": 4 * dim, "num_heads": dim // 128, "num_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))


def measure(folder: Path, file: Path, quantizer: str | None, output: Path, dtype: str) -> dict[str, Any]:
    """Measure one row: load, run, and save the output."""
    import torch
    from safetensors.torch import save_file

    from lightx2v_core import load

    before = peak_memory()
    began = time.perf_counter()
    dit: dict[str, Any] = {"path": str(file)}
    name, _, made = (quantizer or "").partition(":")
    if quantizer is not None:
        dit["quantizer"] = {"use": name, "options": {name: {"format": made}}} if made else name
    pipeline = load(folder, config={"model": "wan2.1", "dtype": dtype, "components": {"dit": dit}})
    loaded = time.perf_counter() - began
    network: Any = pipeline.module("dit")
    torch.manual_seed(1)
    latents, text = torch.randn(1, 16, *LATENT), torch.randn(1, network.arch.text_len, network.arch.text_dim)
    rope = network.rope(latents.shape[1:], "cpu")
    times = []
    with torch.no_grad():
        for _ in range(4):
            start = time.perf_counter()
            out = network(latents, torch.tensor([500]), text, rope)
            times.append(time.perf_counter() - start)
    save_file({"out": out.float().contiguous()}, output)
    stored = sum(tensor.nbytes for tensor in network.state_dict().values())
    return {"load": loaded, "step": min(times[1:]), "peak": peak_memory() - before, "weights": stored}


def peak_memory() -> int:
    """Return the peak resident bytes of this process (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        folder, file, quantizer, output = arguments.row
        row = measure(Path(folder), Path(file), quantizer or None, Path(output), arguments.dtype)
        print(json.dumps(row))
        return
    from safetensors.torch import load_file

    from lightx2v_convert.conversion import convert
    from lightx2v_convert.options import ConvertOptions

    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "model"
        write_model(folder, arguments.dim, arguments.layers)
        source = folder / "diffusion_pytorch_model.safetensors"
        files = {None: source}
        reference = None
        print("| scheme | weights, MB | load, s | memory, MB | step, s | relative error |")
        print("|---|---|---|---|---|---|")
        for name, (format, quantizer) in SCHEMES.items():
            if format not in files:
                (folder / "quantized").mkdir(exist_ok=True)
                files[format] = folder / "quantized" / f"{format}.safetensors"
                convert(source, files[format], ConvertOptions(quantize=format))
            output = Path(where) / "out.safetensors"
            command = [sys.executable, __file__, "--dtype", arguments.dtype, "--row"]
            done = subprocess.run(
                [*command, str(folder), str(files[format]), quantizer or "", str(output)],
                capture_output=True, text=True, env=environment,
            )  # fmt: skip
            if done.returncode:
                reason = " ".join(done.stderr.split("Error: ")[-1].split())
                print(f"| {name} | | | | | not run: {reason} |")
                continue
            row, out = json.loads(done.stdout.splitlines()[-1]), load_file(output)["out"]
            reference = out if reference is None else reference
            error = float((out - reference).norm() / reference.norm())
            size = row["weights"] / 1e6
            memory = row["peak"] / 1e6
            cells = f"{size:.0f} | {row['load']:.2f} | {memory:.0f} | {row['step']:.2f} | {error:.4f}"
            print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
