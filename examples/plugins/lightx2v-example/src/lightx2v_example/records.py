"""A subcommand: a table of the run records in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from lightx2v_core.api import RequestError

COLUMNS = ("created", "variant", "size", "frames", "steps", "seed", "seconds", "file")


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--sort", type=click.Choice(COLUMNS), default="created", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: Sequence[Path], sort: str, as_json: bool) -> None:
    """Compare runs: the records (.json) at PATHS, files or folders; default: this folder."""
    rows = sorted(_rows(paths or (Path(),)), key=lambda row: row[sort])
    if not rows:
        where = ", ".join(map(str, paths)) or "this folder"
        raise RequestError(f"no run record in {where}; run writes one next to each video")
    if as_json:
        click.echo(json.dumps(rows))
        return
    lines = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield a row per record. Raises ``RequestError`` for missing paths and for files that are not records."""
    for path in paths:
        if not path.exists():
            raise RequestError(f"{str(path)!r} does not exist; give records, or folders with records")
        for file in sorted(path.glob("**/*.json")) if path.is_dir() else [path]:
            record = _record(file)
            if record is not None:
                yield _row(file, record)
            elif not path.is_dir():
                raise RequestError(f"{str(file)!r} is not a run record")


def _record(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "lightx2v_record" in record else None


def _row(file: Path, record: dict[str, Any]) -> dict[str, Any]:
    request = record["request"]
    return {
        "created": record["created"],
        "variant": record["variant"],
        "size": f"{request['width']}x{request['height']}",
        "frames": request["frames"],
        "steps": request["steps"],
        "seed": request["seed"],
        "seconds": round(sum(record["seconds"].values()), 1),
        "file": str(file),
    }
