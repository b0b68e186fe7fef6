"""Defaults and memory of every official model at its real size, as a Markdown table.

    python benchmarks/plan_table.py [NAME ...]

Writes the folder of each model with its headers only (sparse files that use almost no space) and plans it in bfloat16
for the CPU, where the estimate does not depend on this machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_headers import MODELS, has_no_holes, write_model

HEADINGS = (
    "model", "task", "size", "frames", "fps", "steps", "shift", "guidance", "scheduler", "latents", "weights", "peak",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; absent: all of them")
    names = parser.parse_args().names or list(MODELS)
    if unknown := set(names) - set(MODELS):
        parser.error(f"unknown official model: {', '.join(sorted(unknown))}; available: {', '.join(MODELS)}")
    print(line(HEADINGS))
    print(line(["---"] * len(HEADINGS)))
    for name in names:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / name
            folder.mkdir()
            write_model(folder, name)
            if has_no_holes(folder):
                sys.exit(f"{root} is on a file system without sparse files; set TMPDIR to one that has them")
            for task in MODELS[name].tasks:
                print(line(row(name, task, planned(folder, task))), flush=True)


def planned(folder: Path, task: str) -> dict[str, Any]:
    """Plan a folder with ``lightx2v-core plan``."""
    command = [sys.executable, "-m", "lightx2v_core", "plan", "--model-path", str(folder), "--task", task]
    done = subprocess.run(
        [*command, "--dtype", "bfloat16", "--device", "cpu", "--json"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    plan: dict[str, Any] = json.loads(done.stdout)["plan"]
    return plan


def row(name: str, task: str, plan: dict[str, Any]) -> list[str]:
    request, memory = plan["request"], plan["memory"]
    return [
        name,
        task,
        f"{request['width']}x{request['height']}",
        str(request["frames"]),
        str(request["fps"]),
        str(request["steps"]),
        f"{request['shift']:g}",
        ", ".join(f"{scale:g}" for scale in request["guide_scale"]),
        request["scheduler"],
        "x".join(map(str, plan["geometry"]["latent_shape"])),
        f"{memory['device_weights'] / 2**30:.1f} GiB",
        f"{memory['device_peak'] / 2**30:.1f} GiB",
    ]


def line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
