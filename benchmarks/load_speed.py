"""Reading a safetensors file: positioned reads of the core compared to safetensors' own loader, with warm caches.

    python benchmarks/load_speed.py [--size-mb 600] [--repeats 5]

Each loader runs in processes of its own, alternately, and touches every byte; prints the medians of the seconds and of
the peak memory, and their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = """
from pathlib import Path
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header
header = read_header(Path(sys.argv[1]))
source = SafetensorsSource(header)
tensors = {name: source.read(name) for name in source.names()}
"""
PEER = """
from safetensors.torch import load_file
tensors = {name: tensor.clone() for name, tensor in load_file(sys.argv[1]).items()}
"""
FRAME = """
import resource, sys, time, torch, json
{imports}
start = time.perf_counter()
{work}
total = sum(t.view(torch.uint8).flatten()[::4096].sum(dtype=torch.int64) for t in tensors.values())
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mb", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    import torch
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        count = max(args.size_mb * 1_000_000 // (2 * 4096 * 1024), 1)
        save_file({f"t{i}": torch.ones(4096, 1024, dtype=torch.bfloat16) for i in range(count)}, path)
        runs: dict[str, list[list[float]]] = {"ours": [], "safetensors": []}
        for _ in range(args.repeats):
            for name, code in (("ours", OURS), ("safetensors", PEER)):
                runs[name].append(run(code, path))
        result = {
            name: {
                "seconds": round(statistics.median(r[0] for r in found), 3),
                "peak_over_file": round(statistics.median(r[1] for r in found) / path.stat().st_size, 3),
            }
            for name, found in runs.items()
        }
    result["ratio"] = {"seconds": round(result["ours"]["seconds"] / result["safetensors"]["seconds"], 2)}
    print(json.dumps({"file_mb": args.size_mb, "torch": torch.__version__, **result}, indent=2))


def run(code: str, path: Path) -> list[float]:
    imports, work = [], []
    for line in code.strip().splitlines():
        (imports if line.startswith(("from", "import")) else work).append(line)
    text = FRAME.format(imports="\n".join(imports), work="\n".join(work))
    done = subprocess.run([sys.executable, "-c", text, str(path)], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
