"""What a plan costs: each header is looked into once, and each configuration is structured once."""

from __future__ import annotations

import cProfile
import importlib.util
import pstats
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

for plugin in ("wan21", "wan22"):
    pytest.importorskip(f"lightx2v_{plugin}", reason="plans a model of it")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan_calls.py"
#: of a second plan; those of the tree before plans were made in steps were 317,680
MOST_CALLS = 95_000


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_calls", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_second_plan_works_out_nothing_that_headers_say(benchmark: ModuleType, tmp_path: Path) -> None:
    """The formats of layers, and their names in the model, are known from the first plan."""
    name = "Wan2.1-T2V-1.3B"
    benchmark.write_model(tmp_path, name)
    time.sleep(0.1)  # a folder that is just changing is read again
    stats: Any = pstats.Stats(benchmark.measure(tmp_path, "t2v")[0])
    called = {(Path(file).name, function) for file, _, function in stats.stats}
    assert {("formats.py", "layer_formats"), ("tensors.py", "once")} <= called
    # what ``Header.once`` is given to work out
    assert not {("formats.py", "<lambda>"), ("layouts.py", "<lambda>")} & called


def test_a_configuration_is_structured_once(benchmark: ModuleType, tmp_path: Path) -> None:
    """Besides it only the options of plugins are structured: once for each candidate model and each selection."""
    benchmark.write_model(tmp_path, "Wan2.1-T2V-1.3B")
    calls = calls_of(benchmark.measure(tmp_path, "t2v")[0])
    assert calls["load_config"] == 1
    assert calls["structure"] == 1 + calls["structured_options"]


def calls_of(profile: cProfile.Profile) -> Counter[str]:
    counts: Counter[str] = Counter()
    stats: Any = pstats.Stats(profile)
    for (file, _, function), (_, count, *_) in stats.stats.items():
        if "lightx2v_core" in file:
            counts[function] += count
    return counts


def test_a_second_plan_of_a_large_model_takes_few_calls() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout.split(": ")[1].split()[0])
    assert 10_000 < calls <= MOST_CALLS
