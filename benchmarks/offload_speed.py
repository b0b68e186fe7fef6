"""Offloading compared to its lower bound: a network too large for its memory, read from disk while it computes.

    python benchmarks/offload_speed.py [--gigabytes 6] [--tokens 384] [--ram-limit 1.4GB]... [--steps 4]
    python benchmarks/offload_speed.py --device cuda --offloader cpu --vram-limit 24GB --vram-limit 12GB ...

Writes a model of that size (the text encoder and the VAE are tiny), runs it with everything resident (the compute time;
skipped with --no-resident), and under each limit with the offloader. Before each step the file's pages are dropped from
the operating system's cache, so that every read is from disk. A step should take as long as the longer of two: reading
its weights at the disk's own speed, or computing. The disk's speed is measured on the same file by a single idle thread
that reads it from start to end, through the operating system's cache and bypassing it (O_DIRECT); the faster of the two
counts. Prints JSON: these times (the best of several, since other load on the machine can only add to them), the CPU
time of reading and of a step, the ratio, and the peak memory compared to the limit. Written files are deleted at the
end.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: width and feed-forward width of Wan2.1 1.3B: 46 million parameters a block
DIM, FFN, HEADS = 1536, 8960, 12
DTYPES = {"float32": "F32", "bfloat16": "BF16"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--tokens", type=int, default=384, help="video tokens of a step, a multiple of 16")
    parser.add_argument("--steps", type=int, default=4, help="number of steps; the first is not counted")
    parser.add_argument("--offloader", default="disk")
    parser.add_argument("--granularity", default="block")
    parser.add_argument("--workers", type=int, default=2, help="reading threads (offloader disk)")
    parser.add_argument("--cached", action="store_true", help="use the page cache (offloader disk)")
    parser.add_argument("--ram-limit", action="append", default=[])
    parser.add_argument("--vram-limit", action="append", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    parser.add_argument("--no-resident", action="store_true", help="skip the run without an offloader")
    parser.add_argument("--folder", type=Path, help="folder for the model; default: the temporary folder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lightx2v-benchmark-", dir=args.folder))
    try:
        size = write_model(folder / "model", args.gigabytes, args.dtype)
        found: dict[str, Any] = {"weights_gb": round(size / 1e9, 2), "tokens": args.tokens}
        speeds = dict(sequential_speeds(weights_of(folder / "model")))
        found["reading"] = {
            name: {"gb_per_second": round(each / 1e9, 2), "cpu_seconds_per_gb": round(cpu * 1e9, 3)}
            for name, (each, cpu) in speeds.items()
        }
        print(json.dumps(found), file=sys.stderr)
        speed = max(each for each, _ in speeds.values())
        found["read_seconds"] = round(size / speed, 2)
        compute: float | None = None
        if not args.no_resident:
            compute = run(folder / "model", args, {"offloader": "none"})["step_seconds"]
            found["compute_seconds"] = round(compute, 2)
        found["runs"] = list(runs(folder / "model", args, speed, compute))
        print(json.dumps(found, indent=2))
    finally:
        shutil.rmtree(folder)


def runs(model: Path, args: Any, speed: float, compute: float | None) -> Iterator[dict[str, Any]]:
    """Start a run with the offloader for each limit; ``speed`` in bytes per second."""
    from lightx2v_core.config.texts import parse_bytes

    options: dict[str, Any] = {"granularity": args.granularity}
    if args.offloader == "disk":
        options["workers"], options["cached"] = args.workers, args.cached
    section = {"use": args.offloader, "options": {args.offloader: options}}
    limits = [("ram_limit", text) for text in args.ram_limit] + [
        ("vram_limit", text) for text in args.vram_limit
    ]
    for name, limit in limits or [("", "")]:
        given = {name: parse_bytes(limit)} if name else {}
        result = run(model, args, {"offloader": section, **given})
        found = {name: limit, **{key: round(value, 3) for key, value in result.items()}}
        if name == "ram_limit":
            found["memory_to_limit"] = round(result["peak_gb"] * 1e9 / parse_bytes(limit), 3)
        read = result["planned_moved_gb"] * 1e9 / speed if args.offloader == "disk" else 0.0
        found["read_seconds"] = round(read, 2)
        floor = max(read, compute or 0.0)
        found["step_to_floor"] = round(result["step_seconds"] / floor, 3) if floor else None
        yield found


def run(model: Path, args: Any, more: dict[str, Any]) -> dict[str, float]:
    """Start one run in a process of its own."""
    given = {"model": str(model), "tokens": args.tokens, "steps": args.steps, "device": args.device}
    line = json.dumps({**given, "dtype": args.dtype, **more})
    done = subprocess.run(
        [sys.executable, __file__, "--one", line], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({**more, **found}), file=sys.stderr)
    return found


def one(given: dict[str, Any]) -> None:
    """Load the model and generate inside that process; print the step times and the peak memory."""
    from lightx2v_core import load

    model, weights = Path(given.pop("model")), []
    weights = [weights_of(model)]
    steps: list[float] = []
    cpu: list[tuple[float, float]] = []

    def watch(event: Any) -> None:
        if event.kind == "step":
            steps.append(event.seconds)
            cpu.append(cpu_seconds())
            for path in weights:
                drop(path)

    rows = 4 * math.isqrt(given["tokens"] // 4)
    columns = given.pop("tokens") // rows
    size = (columns * 16, rows * 16)
    drop(weights[0])
    with load(model, size=size, frames=1, guide_scale=(1.0,), **given) as pipeline:
        pipeline.generate(prompt="a fox", seed=1, on_event=watch)
        found = {
            "step_seconds": min(steps[1:]),
            "median_step_seconds": statistics.median(steps[1:]),
            "first_step_seconds": steps[0],
            "user_seconds": (cpu[-1][0] - cpu[0][0]) / (len(steps) - 1),
            "system_seconds": (cpu[-1][1] - cpu[0][1]) / (len(steps) - 1),
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "planned_gb": pipeline.plan.memory.host_peak / 1e9,
            "planned_moved_gb": pipeline.plan.memory.moved / 1e9,
        }
        if given["device"] != "cpu":
            import torch

            found["device_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            found["planned_device_gb"] = pipeline.plan.memory.device_peak / 1e9
    print(json.dumps(found))


def write_model(folder: Path, gigabytes: float, dtype: str) -> int:
    """Write a tiny Wan2.1 with a network of that size; returns its bytes. All blocks have the same values."""
    import torch

    from lightx2v_wan21.api import DitArchitecture, dit_tensors, random_tensors
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(folder)
    for path in folder.glob("diffusion_pytorch_model*"):
        path.unlink()
    kind: torch.dtype = getattr(torch, dtype)
    arch: dict[str, Any] = {
        "dim": DIM, "ffn_dim": FFN, "num_heads": HEADS, "in_dim": 16, "out_dim": 16, "text_dim": 64,
    }  # fmt: skip
    small = DitArchitecture(num_layers=1, **arch)
    block = sum(math.prod(shape) for name, shape in dit_tensors(small).items() if name.startswith("blocks"))
    layers = round(gigabytes * 1e9 / (block * kind.itemsize))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **arch, "num_layers": layers}))
    one_block = random_tensors(dit_tensors(small), torch.Generator().manual_seed(0))
    shapes = dit_tensors(DitArchitecture(num_layers=layers, **arch))
    entries, at = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * kind.itemsize
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)  # padded like the format's own library does
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in shapes:
            parts = name.split(".")
            same = ".".join(["blocks", "0", *parts[2:]]) if parts[0] == "blocks" else name
            file.write(memoryview(one_block[same].to(kind).view(torch.uint8).flatten().numpy()))
        file.flush()
        os.fsync(file.fileno())
    return at


def weights_of(model: Path) -> Path:
    return model / "diffusion_pytorch_model.safetensors"


def sequential_speeds(path: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Measure the speed of reading a file from the disk: bytes per second, and CPU seconds per byte.

    Yields the faster of two runs, through the operating system's cache and bypassing it.
    """
    for name, flag, size in (("cached", 0, 1 << 24), ("uncached", getattr(os, "O_DIRECT", None), 1 << 26)):
        if flag is None:
            continue
        found = []
        with mmap.mmap(-1, size) as buffer:
            for _ in range(2):
                drop(path)
                file = os.open(path, os.O_RDONLY | flag)
                start, before, at = time.perf_counter(), sum(cpu_seconds()), 0
                while count := os.preadv(file, [buffer], at):
                    at += count
                found.append((at / (time.perf_counter() - start), (sum(cpu_seconds()) - before) / at))
                os.close(file)
        yield name, max(found)


def cpu_seconds() -> tuple[float, float]:
    """Return the user and the system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def drop(path: Path) -> None:
    """Drop a file from the operating system's cache."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(json.loads(sys.argv[2]))
    else:
        main()
