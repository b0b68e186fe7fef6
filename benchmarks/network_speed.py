"""Speed of the Wan2.1 text-to-video network at real sizes, with random weights.

    python benchmarks/network_speed.py [--device cuda] [--dtype bfloat16] [--attention auto] [--case NAME ...]

Prints, for each case, the seconds of one forward pass and of one guided step (two passes), the achieved TFLOP/s, and
the peak memory, as a Markdown table with versions. Medians of ``--repeats`` passes after ``--warmup``. FLOPs count the
matrix products of linears and attention (a multiply-add is two).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from attrs import evolve

from lightx2v_core import __version__
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.device import probe
from lightx2v_core.spec.context import BuildContext
from lightx2v_wan21.api import DitArchitecture, WanDiT

NETWORKS = {
    "1.3b": DitArchitecture(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_dim=16, out_dim=16),
    "14b": DitArchitecture(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=16, out_dim=16),
    "tiny": DitArchitecture(dim=256, ffn_dim=1024, num_heads=2, num_layers=2, in_dim=16, out_dim=16),
}
#: case -> network, width, height, frames
CASES = {
    "1.3b-480p": ("1.3b", 832, 480, 81),
    "1.3b-720p": ("1.3b", 1280, 720, 81),
    "14b-480p": ("14b", 832, 480, 81),
    "tiny": ("tiny", 128, 128, 9),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="auto")
    parser.add_argument(
        "--case", nargs="+", choices=list(CASES), default=["1.3b-480p", "1.3b-720p", "14b-480p"]
    )
    parser.add_argument(
        "--layers", type=int, help="number of blocks to run; the result is scaled to all blocks"
    )
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device, _ = probe(args.device)
    chosen = (
        Registry(load_plugins())
        .select("attention", args.attention, BuildContext(device=device, dtype=args.dtype))
        .chosen
    )
    attention = chosen.spec.build(  # type: ignore[attr-defined]
        chosen.spec.config(), BuildContext(device=device, dtype=args.dtype)
    )
    print(f"{device.name}, {args.dtype}, attention {chosen.qualified}, torch {torch.__version__}, "
          f"lightx2v-core {__version__}, medians of {args.repeats}\n")  # fmt: skip
    print("| case | tokens | s / pass | s / guided step | TFLOP/s | peak GiB |")
    print("|---|---|---|---|---|---|")
    for case in args.case:
        name, width, height, frames = CASES[case]
        arch = NETWORKS[name]
        share = 1.0
        if args.layers:
            share, arch = args.layers / arch.num_layers, evolve(arch, num_layers=args.layers)
        shape = (arch.in_dim, (frames - 1) // 4 + 1, height // 8, width // 8)
        tokens = shape[1] * shape[2] * shape[3] // 4
        seconds, peak = measure(arch, shape, attention, device.torch_name, args)
        speed = flops(arch, tokens) / seconds / 1e12
        seconds /= share
        print(f"| {case} | {tokens} | {seconds:.3f} | {2 * seconds:.3f} | {speed:.1f} | {peak / 2**30:.1f} |")


def measure(
    arch: DitArchitecture,
    shape: tuple[int, ...],
    attention: Callable[..., torch.Tensor],
    device: str,
    args: argparse.Namespace,
) -> tuple[float, int]:
    """Measure the median seconds of a forward pass, and the peak bytes on a CUDA device."""
    with torch.device("meta"):
        network = WanDiT(arch, attention=attention, dtype=getattr(torch, args.dtype))
    network.to_empty(device=device)
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.normal_(0, 0.02)
        latents = torch.randn(1, *shape, device=device)
        context = torch.randn(1, arch.text_len, arch.text_dim, device=device)
        timestep = torch.tensor([500.0], device=device)
        rope = network.rope(shape, device)
        cuda = device.startswith("cuda")
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        times = []
        for _ in range(args.warmup + args.repeats):
            start = time.perf_counter()
            network(latents, timestep, context, rope)
            if cuda:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated(device) if cuda else 0
    return statistics.median(times[args.warmup :]), peak


def flops(arch: DitArchitecture, tokens: int) -> float:
    """Count the FLOPs of one pass: linears over all tokens, self-attention, and cross-attention to the text."""
    text = arch.text_len
    block = 2 * tokens * (6 * arch.dim**2 + 2 * arch.dim * arch.ffn_dim) + 2 * text * 2 * arch.dim**2
    block += 4 * tokens**2 * arch.dim + 4 * tokens * text * arch.dim
    ends = 2 * tokens * arch.dim * 64 * 2 + 2 * text * (arch.text_dim * arch.dim + arch.dim**2)
    return float(arch.num_layers * block + ends)


if __name__ == "__main__":
    main()
