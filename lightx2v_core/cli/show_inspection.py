"""An inspection as text: a table of components, then adapters, problems and what can be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightx2v_core.cli.show_plan import count, format_bytes
from lightx2v_core.cli.terminal import escaped, message
from lightx2v_core.inspection.report import ComponentReport, Inspection, LoraReport

_HEAD = ("component", "files", "layout", "variant", "precision", "parameters", "size")
#: columns of numbers
_RIGHT = frozenset({"parameters", "size"})
#: lines of one kind
_LINES = 15
#: modules of a LoRA that are named
_MOST = 6


def inspection_text(found: Inspection) -> str:
    """The report for people."""
    lines = [escaped(found.path)]
    if found.components:
        lines += table([_HEAD, *(_row(item) for item in found.components)])
    for lora in found.loras:
        lines += map(escaped, _lora(lora))
    lines += some(
        [escaped(f"other: {item.file}, {format_bytes(item.bytes)}: {item.what}") for item in found.others]
    )
    if not (found.components or found.loras or found.others):
        lines.append("  no weight files")
    lines += some([message(f"problem: {problem}") for problem in found.problems])
    how = "as it is, it cannot run" if found.runnable else "cannot run"
    lines += [message(f"{how}: {obstacle}") for obstacle in found.obstacles]
    if found.runnable:
        lines.append("can run")
        lines += [
            escaped(line)
            for run in found.runnable
            for line in (f"  {run.variant}, {run.task}:", f"    {run.command}")
        ]
    return "\n".join(lines)


def _row(item: ComponentReport) -> tuple[str, ...]:
    files = item.files[0] + (f" and {len(item.files) - 1} more" if len(item.files) > 1 else "")
    precision = f"{item.precision} ({item.scheme})" if item.scheme else item.precision
    variant = " or ".join(item.variants) or "-"
    return (
        item.component, files, item.layout, variant, precision, count(item.parameters), format_bytes(item.bytes),
    )  # fmt: skip


def _lora(item: LoraReport) -> Iterator[str]:
    ranks = ", ".join(map(str, item.ranks)) or "none"
    kinds = ", ".join(f"{number} {kind}" for kind, number in item.kinds.items())
    expert = f", for {item.expert}" if item.expert else ""
    yield f"LoRA: {item.file}, {format_bytes(item.bytes)}: names of {item.family}, rank {ranks}, {kinds}{expert}"
    named = sorted(item.targets, key=lambda name: -item.targets[name])
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    yield f"  targets {', '.join(f'{name} ({item.targets[name]})' for name in named[:_MOST])}{more}"
    for name, (fits, total) in item.coverage.items():
        yield f"  {fits} of {total} tensors fit {name}"


def some(lines: Sequence[str]) -> list[str]:
    """The first lines of many, and how many more there are."""
    if len(lines) <= _LINES:
        return list(lines)
    return [*lines[:_LINES], f"  and {len(lines) - _LINES} more of these; --json shows all of them"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns; the first row names them."""
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
