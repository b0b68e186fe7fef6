"""Summary printed before a run: files, precision, kernels, LoRA, guidance, notes, and replaced output."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightx2v_core.cli.width import folded

#: largest number of files listed for a component
_NAMED = 2


def start_text(plan: Mapping[str, Any]) -> str:
    """Summarize a plan (as JSON data): a headline, followed by lines of details."""
    lines = [headline(plan), *_components(plan), *_choices(plan), *_adapters(plan), *_output(plan)]
    lines += [f"  note: {note}" for note in plan["notes"]]
    return "\n".join(folded(line.replace("\n", " "), indent=4) for line in lines)


def headline(plan: Mapping[str, Any]) -> str:
    """Summarize a plan in one line."""
    request = plan["request"]
    return (
        f"{plan['variant']} {plan['task']}: {request['width']}x{request['height']}, {request['frames']} frames, "
        f"{request['steps']} steps of {request['scheduler']}, seed {request['seed']}, {plan['dtype']} on "
        f"{plan['device']['name']}"
    )


def _components(plan: Mapping[str, Any]) -> Iterable[str]:
    for part in plan["components"]:
        files = [str(file) for file in part["files"]]
        folder = os.path.dirname(files[0])
        more = f" and {len(files) - 1} more files" if len(files) > _NAMED else ""
        named = files if len(files) <= _NAMED else files[:1]
        shown = [
            named[0],
            *(name if os.path.dirname(name) != folder else Path(name).name for name in named[1:]),
        ]
        yield f"  {part['name']}: {part['scheme'] or part['precision']}, {', '.join(shown)}{more}"


def _choices(plan: Mapping[str, Any]) -> Iterable[str]:
    request = plan["request"]
    used = [
        f"{choice['kind']} {choice['use']}" for choice in plan["choices"] if choice["kind"] != "scheduler"
    ]
    yield f"  {', '.join(used)}"
    scales = ", ".join(f"{scale:g}" for scale in request["guide_scale"])
    off = " (off)" if all(scale == 1 for scale in request["guide_scale"]) else ""
    yield f"  guidance {scales}{off}, shift {request['shift']:g}"


def _adapters(plan: Mapping[str, Any]) -> Iterable[str]:
    for lora in plan["adapters"]:
        yield f"  LoRA {lora['path']}: strength {lora['strength']:g} on {lora['component']}"


def _output(plan: Mapping[str, Any]) -> Iterable[str]:
    output = plan["output"]
    if output is not None:
        yield f"  output {output['path']}{replaced(output['replaces'])}"


def replaced(files: Iterable[str]) -> str:
    """Name the files that a result replaces, as a suffix of its path; empty if there are none."""
    names = [Path(file).name for file in files]
    return f"; replaces existing {' and '.join(names)}" if names else ""
