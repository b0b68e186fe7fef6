"""Text format of a plan."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightx2v_core.cli.show_start import replaced
from lightx2v_core.cli.terminal import escaped, message
from lightx2v_core.cli.width import cut, folded
from lightx2v_core.plan.plan import MemoryForecast, Plan, PlannedComponent
from lightx2v_core.spec.recognition import Geometry

#: largest number of LoRA tensors without effect listed
_SHOWN = 10


def plan_text(plan: Plan) -> str:
    """Format a plan as text: one fact per line, with the reason for each choice."""
    request, geometry, memory = plan.request, plan.geometry, plan.memory
    lines = [
        f"{plan.variant}: {plan.summary}",
        f"  model     {plan.model}, {plan.task}, {count(plan.parameters)} parameters, from {plan.model_path}",
        f"  device    {plan.device.name} ({plan.device.torch_name}; {plan.device_why})",
        f"  dtype     {plan.dtype} ({plan.dtype_why})",
        "components",
        *(line for part in plan.components for line in _component(part, plan.model_path)),
        "choices",
    ]
    width = max([9, *(len(choice.kind) for choice in plan.choices)])
    for choice in plan.choices:
        lines.append(f"  {choice.kind:<{width}} {choice.use} ({choice.why})")
        lines += [
            f"            not {name}: {'; '.join(reasons)}" for name, reasons in choice.rejected.items()
        ]
    origin = plan.origins
    scales = ", ".join(f"{scale:g}" for scale in request.guide_scale)
    lines += [
        *(_adapters(plan)),
        "request",
        f"  size      {request.width}x{request.height} ({origin['size']})",
        f"  frames    {request.frames} ({origin['frames']}) at {request.fps:g} fps ({origin['fps']})",
        f"  steps     {request.steps} ({origin['steps']}), shift {request.shift:g} ({origin['shift']})",
        f"  guidance  {scales} ({origin['guide_scale']}){', in one batch' if request.batched_guidance else ''}",
        f"  prompt    {_short(request.prompt) or '(empty)'} ({origin['prompt']})",
        f"  negative  {_short(request.negative_prompt) or '(empty)'} ({origin['negative_prompt']})",
        f"  seed      {request.seed} ({origin['seed']})",
        f"  latents   {list(geometry.latent_shape)}, {geometry.tokens} tokens{_beside(geometry)}",
        *_stages(plan),
        "memory (forecast)",
        f"  device    peak {format_bytes(memory.device_peak)} (weights {format_bytes(memory.device_weights)})"
        + (f" of {format_bytes(memory.device_total)}" if memory.device_total else ", total unknown"),
        f"  host      {format_bytes(memory.host_peak)}",
        f"  disk      {format_bytes(plan.read)} read during loading",
        *_moving(plan.memory),
    ]
    if plan.output is not None:
        record = ", with a run record" if plan.output.record else ""
        lines += [
            "output",
            f"  {plan.output.kind:<10}{plan.output.path}{record}{replaced(plan.output.replaces)}",
        ]
    told = [f"note: {note}" for note in plan.notes]
    told += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join([*(folded(escaped(line)) for line in lines), *map(_told, told)])


def _told(text: str) -> str:
    """Wrap a message."""
    return "\n".join(folded(line, indent=2) for line in message(text).split("\n"))


def _moving(memory: MemoryForecast) -> Iterable[str]:
    """Describe the work of the offloader and its cost."""
    yield from (f"  offload   {detail}" for detail in memory.details)
    if memory.moved:
        whole = memory.computing + memory.exposed
        yield (
            f"  moved     {format_bytes(memory.moved)} per step; {memory.exposed / whole:.0%} of a step "
            f"({memory.exposed:.2g} s) is expected to wait for transfers"
        )
    if memory.switching:
        yield f"  switching {memory.switching:.2g} s in total between components"
    if memory.scratch:
        yield f"  scratch   {format_bytes(memory.scratch)} of disk for computed weights"


def _beside(geometry: Geometry) -> str:
    """Describe the latent frames of reference images, and the segments."""
    parts = ""
    if geometry.lead:
        parts += f"; {geometry.lead} latent frame{'s' * (geometry.lead > 1)} of reference images in front"
    if geometry.segments > 1:
        parts += f"; in each of {geometry.segments} segments"
        parts += (
            f", overlapping by {geometry.overlap} frame{'s' * (geometry.overlap > 1)}"
            if geometry.overlap
            else ""
        )
    return parts


def _stages(plan: Plan) -> Iterable[str]:
    """Format a line for each resolution of the denoising; none if there is only one."""
    if len(plan.stages) == 1:
        return
    ends = [stage.start for stage in plan.stages[1:]] + [plan.request.steps]
    for stage, end in zip(plan.stages, ends, strict=True):
        shape = stage.geometry
        steps = f"step {end}" if end == stage.start + 1 else f"steps {stage.start + 1} to {end}"
        yield f"  stage     {shape.width}x{shape.height}, {shape.tokens} tokens, shift {stage.shift:g}: {steps}"


def _component(part: PlannedComponent, folder: str) -> Iterable[str]:
    yield (
        f"  {part.name}: {part.summary}, {count(part.parameters)} parameters in {part.tensors} tensors, "
        f"{part.scheme or part.precision}, {format_bytes(part.stored)}"
        + (f", layout of {part.layout}" if part.layout != "official" else "")
    )
    names = [_inside(file, folder) for file in part.files]
    shown = ", ".join(names if len(names) <= 2 else [names[0], f"... {names[-1]} ({len(names)} files)"])
    weights, activations = format_bytes(part.weights), format_bytes(part.activations)
    yield f"    {shown} (by {part.rule}); needs {weights} + {activations} of activations"
    for other in part.passed_over:
        yield f"    not {other}"


def _inside(file: str, folder: str) -> str:
    """Return the path of a file relative to the model folder, or the full path if it is outside."""
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else file


def _adapters(plan: Plan) -> Iterable[str]:
    """Format the LoRA files: target, strength, and how many of their tensors have an effect."""
    if plan.adapters:
        yield "loras"
    for lora in plan.adapters:
        kinds = ", ".join(f"{number} {kind}" for kind, number in lora.kinds.items())
        ranks = f", rank {', '.join(map(str, lora.ranks))}" if lora.ranks else ""
        yield f"  {Path(lora.path).name}: strength {lora.strength:g} on {lora.component} ({lora.component_why})"
        yield f"    {lora.family} names; {kinds}{ranks}; scale {lora.scale}"
        yield f"    {len(lora.matched)} of {lora.tensors} tensors have an effect, on {lora.changed} of the network"
        without = [*lora.mismatched.items(), *lora.unmatched.items()]
        yield from (f"      not {name}: {why}" for name, why in without[:_SHOWN])
        if len(without) > _SHOWN:
            yield f"      and {len(without) - _SHOWN} more (--json shows all)"


def format_bytes(number: int) -> str:
    """Format a number of bytes: 1.5 GiB."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count(number: int) -> str:
    """Format a number with separators: 1,418,996,800."""
    return f"{number:,}"


def _short(text: str, limit: int = 40) -> str:
    return cut(escaped(text[:limit]) + text[limit : limit + 1], limit)
