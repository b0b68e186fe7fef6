"""Every official model is planned from the headers of its real size: recognized, counted, and quick."""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_headers", Path(__file__).with_name("real_headers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REAL = _models()
BUSY = max(REAL.MODELS, key=lambda name: len(REAL.MODELS[name].networks))
COUNTS = {"text_encoder": 5_680_910_336, "vae": 126_892_531}


@pytest.mark.alone
@pytest.mark.parametrize(
    "name",
    # on a busy machine too, the one with the most parts
    [pytest.param(name, marks=pytest.mark.load if name == BUSY else ()) for name in REAL.MODELS],
)
def test_an_official_model_is_planned_from_its_headers(name: str, tmp_path: Path) -> None:
    model = REAL.MODELS[name]
    for plugin in ("wan21", model.plugin):
        pytest.importorskip(f"lightx2v_{plugin}", reason="needs the plugin of this model")
    folder = tmp_path / name
    folder.mkdir()
    REAL.write_model(folder, name)
    if REAL.has_no_holes(folder):
        pytest.skip("this file system has no sparse files")
    for task in model.tasks:
        start = processor_seconds()
        plan = planned(folder, task)
        seconds = processor_seconds() - start
        assert seconds < 2, f"{seconds:.2f} s"
        assert (plan["variant"], plan["task"]) == (model.variant, task)
        parts = {part["name"]: part for part in plan["components"]}
        for network in model.networks:
            assert parts[network]["parameters"] == model.parameters
            assert len(parts[network]["files"]) == model.shards
        expected = {**COUNTS, **({"vae": 704_688_668} if model.size == "5B" else {})}
        assert {part: parts[part]["parameters"] for part in expected} == expected
        assert ("image_encoder" in parts) == model.image_encoder
        assert tuple(plan["geometry"]["latent_shape"]) == model.latent_shape
        assert plan["memory"]["device_peak"] > plan["memory"]["device_weights"] > 2 * model.parameters


@pytest.mark.parametrize("name", REAL.MODELS)
def test_networks_have_as_many_tensors_as_published(name: str) -> None:
    model = REAL.MODELS[name]
    for plugin in ("wan21", model.plugin):
        pytest.importorskip(f"lightx2v_{plugin}", reason="needs the plugin of this model")
    assert len(REAL.network_tensors(name)) == model.tensors


def processor_seconds() -> float:
    """What ended children have used of the processor, which counts nothing else that the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def planned(folder: Path, task: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "lightx2v_core", "plan", "--model-path", str(folder), "--task", task]
    done = subprocess.run(
        [*line, "--dtype", "bfloat16", "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)["plan"]
    return plan
