"""The run record: the data needed to trace and to reproduce a result."""

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
    """Build the record of one run. ``timings`` are seconds per phase, ``steps`` seconds per denoising step."""
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
    """Describe the LoRA files of a plan for a record, in the order they are applied."""
    return [_lora(adapter) for adapter in plan.adapters]


def _lora(adapter: PlannedAdapter) -> dict[str, object]:
    """Describe a LoRA file for a record: matched names without the numbers of their blocks, with counts."""
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
    """Serialize a record as JSON text."""
    return json.dumps(record, ensure_ascii=False, indent=indent)


def describe_inputs(inputs: Mapping[str, object]) -> dict[str, object]:
    """Describe the inputs for a record: paths unchanged, inputs in memory by their type."""
    return {name: _describe_input(value) for name, value in inputs.items()}


def _describe_input(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_describe_input(entry) for entry in value]
    return str(value) if isinstance(value, str | Path) else f"<{type(value).__name__} in memory>"
