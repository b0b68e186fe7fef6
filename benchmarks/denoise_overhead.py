"""Cost of the denoising loop beyond the network: loop time per step minus the same forward passes alone.

    python benchmarks/denoise_overhead.py [--steps 20] [--repeats 30] [--check]

The loop (guidance, scheduler, events) runs on the tiny random model with a timer around each forward pass; the rest of
the loop's time is its own cost. Medians of the repeats. ``--check`` exits with 1 when the cost is above 1 % of the
network's time plus 50 microseconds per step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightx2v_core import __version__
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.events import ignore
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.runtime.denoise import Leg, denoise
from lightx2v_core.runtime.pipeline import Pipeline
from lightx2v_core.spec.request import SchedulerContext


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--scheduler", default="unipc")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)  # on a tiny model the second thread only adds noise
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.steps, args.repeats, args.scheduler)
    print(json.dumps(result, indent=2))
    return 0 if not args.check or result["overhead_us"] <= result["allowed_us"] else 1


def measure(folder: Path, steps: int, repeats: int, scheduler: str) -> dict[str, object]:
    """Measure the medians, in microseconds per step."""
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(folder, 0)
    values = {
        ("model_path",): str(folder), ("prompt",): "a fox", ("scheduler",): scheduler,
        ("sampling", "size"): [96, 64], ("sampling", "frames"): 9, ("sampling", "steps"): steps,
    }  # fmt: skip
    loaded = load_config(
        None, [Value(path=path, value=value, origin="benchmark") for path, value in values.items()]
    )
    resolved = resolve(loaded, load_plugins())
    pipeline = Pipeline.load(resolved)
    model, request = pipeline._model, resolved.plan.request
    with torch.inference_mode():
        conditions = model.encode(request, {}, guided=True, emit=ignore)
        noise = torch.randn(conditions.latent_shape)
        network = Timed(model._network)  # type: ignore[attr-defined]
        model._network = network  # type: ignore[attr-defined]

        def loop() -> None:
            sampler = resolved.scheduler.spec.build(
                resolved.scheduler.config, SchedulerContext(steps=steps, shift=request.shift)
            )
            leg = Leg(steps=steps, scheduler=sampler, noise=noise, conditions=conditions)
            denoise(model, [leg], request, emit=ignore, synchronize=lambda: None)

        pairs = []
        for _ in range(repeats + 3):
            network.seconds = 0.0
            pairs.append((timed(loop), network.seconds))
    del pairs[:3]  # warm-up
    bare_us = statistics.median(b for _, b in pairs) / steps * 1e6
    overhead_us = statistics.median(a - b for a, b in pairs) / steps * 1e6
    return {
        "steps": steps,
        "scheduler": scheduler,
        "bare_us_per_step": round(bare_us, 1),
        "overhead_us": round(overhead_us, 1),
        "allowed_us": round(bare_us * 0.01 + 50, 1),
        "versions": {"lightx2v-core": __version__, "torch": torch.__version__},
    }


class Timed:
    """The network, with the total seconds of its forward passes."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.arch = network.arch
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = self._network(*args, **kwargs)
        self.seconds += time.perf_counter() - start
        return out


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
