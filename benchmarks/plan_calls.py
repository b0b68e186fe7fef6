"""Number of function calls of a plan, and its duration.

    python benchmarks/plan_calls.py [--model Wan2.2-T2V-A14B] [--top 20]

Writes the folder of an official model with its headers only (sparse files that use almost no space) and plans it twice
with one ``Planner``, like the UI does: the second plan reads no headers again, and is the one that counts. Hashes are
fixed, so the count is the same each time.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_headers import MODELS, has_no_holes, write_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="Wan2.2-T2V-A14B")
    parser.add_argument(
        "--top", type=int, default=0, metavar="N", help="list the N functions with most calls"
    )
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write the profile of the plan")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / given.model
        folder.mkdir()
        write_model(folder, given.model)
        if has_no_holes(folder):
            sys.exit(f"{root} is on a file system without sparse files; set TMPDIR to one that has them")
        time.sleep(0.1)  # a folder that has just changed is read again
        profile, seconds = measure(folder, MODELS[given.model].tasks[0])
    stats: Any = pstats.Stats(profile)
    print(f"{given.model}: {stats.total_calls} function calls and {seconds:.3f} s per plan")
    if given.top:
        stats.sort_stats("ncalls").print_stats(given.top)
    if given.dump:
        profile.dump_stats(given.dump)


def measure(folder: Path, task: str) -> tuple[cProfile.Profile, float]:
    """Profile the second plan of a planner, and time the third without the profiler."""
    from lightx2v_core.api import Planner

    planner = Planner()

    def plan() -> None:
        planner.plan(folder, task=task, device="cpu", dtype="bfloat16")

    plan()
    profile = cProfile.Profile()
    profile.runcall(plan)
    start = time.perf_counter()
    plan()
    return profile, time.perf_counter() - start


if __name__ == "__main__":
    main()
