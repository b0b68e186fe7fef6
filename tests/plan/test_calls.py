"""What a plan costs: each header is looked into once, and each configuration is structured once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

for plugin in ("wan21", "wan22"):
    pytest.importorskip(f"lightx2v_{plugin}", reason="plans a model of it")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan_calls.py"
#: of a second plan; those of the tree before plans were made in steps were 317,680
MOST_CALLS = 110_000


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_calls", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_second_plan_of_a_large_model_takes_few_calls() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout.split(": ")[1].split()[0])
    assert 10_000 < calls <= MOST_CALLS
