"""The run record: what is needed to know, and to repeat, how a result came about."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from attrs import asdict

from lightx2v_core.checkpoint.fingerprint import fingerprint
from lightx2v_core.plan.plan import Plan, PlannedAdapter

FORMAT = 1


def run_record(
    plan: Plan,
    config: Mapping[str, object],
    inputs: Mapping[str, object],
    *,
    timings: Mapping[str, float],
    steps: list[float],
    peak_memory: Mapping[str, int],
) -> dict[str, object]:
    """The record of one run. ``timings`` are seconds a phase, ``steps`` seconds a denoising step."""
    return {
        "lightx2v_record": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": plan.model,
        "variant": plan.variant,
        "task": plan.task,
        "request": asdict(plan.request),
        "inputs": describe_inputs(inputs),
        "config": dict(config),
        "components": {
            part.name: {
                "files": [Path(file).name for file in part.files],
                "precision": part.precision,
                "fingerprint": fingerprint(Path(file) for file in part.files),
            }
            for part in plan.components
        },
        "choices": {
            choice.kind: {"use": choice.use, "options": dict(choice.options)} for choice in plan.choices
        },
        "loras": describe_loras(plan),
        "dtype": plan.dtype,
        "device": plan.device.name,
        "latent_shape": list(plan.geometry.video_latents),
        "segments": plan.geometry.segments,
        "stages": [
            {"start": stage.start, "shift": stage.shift, "latent_shape": list(stage.geometry.latent_shape)}
            for stage in plan.stages
        ],
        "seconds": {phase: round(seconds, 4) for phase, seconds in timings.items()},
        "step_seconds": [round(seconds, 4) for seconds in steps],
        "peak_memory_bytes": dict(peak_memory),
        "versions": {
            **plan.plugins,
            "torch": metadata.version("torch"),
            "python": platform.python_version(),
            "platform": sys.platform,
        },
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }


def describe_loras(plan: Plan) -> list[dict[str, object]]:
    """The LoRA files of a plan as a record holds them, in the order they are applied."""
    return [_lora(adapter) for adapter in plan.adapters]


def _lora(adapter: PlannedAdapter) -> dict[str, object]:
    """A LoRA file as a record holds it: matched names without the numbers of their blocks, with how many there are."""
    matched = Counter(re.sub(r"(?<=[._])\d+(?=[._])", "N", name, count=1) for name in adapter.matched)
    return {
        "file": Path(adapter.path).name,
        "fingerprint": fingerprint([Path(adapter.path)]),
        "component": adapter.component,
        "strength": adapter.strength,
        "scale": adapter.scale,
        "matched": dict(matched),
        "unmatched": dict(adapter.unmatched),
        "mismatched": dict(adapter.mismatched),
    }


def dumps(record: Mapping[str, object], *, indent: int | None = 2) -> str:
    """The record as JSON text."""
    return json.dumps(record, ensure_ascii=False, indent=indent)


def describe_inputs(inputs: Mapping[str, object]) -> dict[str, object]:
    """Inputs as a record holds them: paths as they are, what was given in memory by its type."""
    return {name: _describe_input(value) for name, value in inputs.items()}


def _describe_input(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_describe_input(entry) for entry in value]
    return str(value) if isinstance(value, str | Path) else f"<{type(value).__name__} in memory>"
