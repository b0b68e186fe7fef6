"""Text format of an inspection: a table of components, then LoRA files, problems and what can be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightx2v_core.cli.show_plan import count, format_bytes
from lightx2v_core.cli.terminal import escaped, message
from lightx2v_core.inspection.report import ComponentReport, Inspection, LoraReport

_HEAD = ("component", "files", "layout", "variant", "precision", "parameters", "size")
#: right-aligned columns
_RIGHT = frozenset({"parameters", "size"})
#: largest number of lines per section
_LINES = 15
#: largest number of LoRA target modules listed
_MOST = 6


def inspection_text(inspection: Inspection) -> str:
    """Format an inspection as text."""
    lines = [escaped(inspection.path)]
    if inspection.components:
        lines += table([_HEAD, *(_row(component) for component in inspection.components)])
    for lora in inspection.loras:
        lines += map(escaped, _lora(lora))
    lines += some(
        [
            escaped(f"other: {other.file}, {format_bytes(other.bytes)}: {other.what}")
            for other in inspection.others
        ]
    )
    if not (inspection.components or inspection.loras or inspection.others):
        lines.append("  no weight files")
    lines += some([message(f"problem: {problem}") for problem in inspection.problems])
    how = "cannot run as it is" if inspection.runnable else "cannot run"
    lines += [message(f"{how}: {obstacle}") for obstacle in inspection.obstacles]
    if inspection.runnable:
        lines.append("can run")
        lines += [
            escaped(line)
            for run in inspection.runnable
            for line in (f"  {run.variant}, {run.task}:", f"    {run.command}")
        ]
    return "\n".join(lines)


def _row(component: ComponentReport) -> tuple[str, ...]:
    files = component.files[0] + (f" and {len(component.files) - 1} more" if len(component.files) > 1 else "")
    precision = f"{component.precision} ({component.scheme})" if component.scheme else component.precision
    variant = " or ".join(component.variants) or "-"
    return (
        component.component, files, component.layout, variant, precision, count(component.parameters),
        format_bytes(component.bytes),
    )  # fmt: skip


def _lora(lora: LoraReport) -> Iterator[str]:
    ranks = ", ".join(map(str, lora.ranks)) or "none"
    kinds = ", ".join(f"{number} {kind}" for kind, number in lora.kinds.items())
    expert = f", for {lora.expert}" if lora.expert else ""
    yield f"LoRA: {lora.file}, {format_bytes(lora.bytes)}: {lora.family} names, rank {ranks}, {kinds}{expert}"
    named = sorted(lora.targets, key=lambda name: -lora.targets[name])
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    yield f"  targets {', '.join(f'{name} ({lora.targets[name]})' for name in named[:_MOST])}{more}"
    for name, (fits, total) in lora.coverage.items():
        yield f"  {fits} of {total} tensors fit {name}"


def some(lines: Sequence[str]) -> list[str]:
    """Return the first lines of many, and the number of the rest."""
    if len(lines) <= _LINES:
        return list(lines)
    return [*lines[:_LINES], f"  and {len(lines) - _LINES} more of these; --json lists all"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows in columns; the first row has the column names."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, rows[0], strict=True)
        ).rstrip()
        for row in rows
    ]
