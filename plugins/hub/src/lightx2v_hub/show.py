"""Text and JSON output of a download: files and sizes, the catalog, and commands for the folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from lightx2v_core.api import escaped
from lightx2v_hub.events import DownloadReady
from lightx2v_hub.local import FileState, format_size
from lightx2v_hub.repositories import CatalogEntry, DownloadRequest
from lightx2v_hub.selection import FileSelection

#: state of a file -> text
_WORDS = {
    "whole": "present",
    "unrecorded": "present, not checked yet",
    "changed": "newer version on the hub",
    "other": "a different file is present",
    "begun": "partial",
    "absent": "",
}


def describe(folder: Path, selection: FileSelection, states: Sequence[FileState], free: int) -> DownloadReady:
    """Build the event that describes a download; ``free`` is in bytes."""
    return DownloadReady(
        folder=str(folder),
        files=[
            {
                "repo": state.file.remote.repo,
                "commit": state.file.remote.commit,
                "path": state.file.remote.path,
                "target": state.file.target,
                "component": state.file.component,
                "precision": state.file.precision,
                "bytes": state.file.remote.size,
                "missing": state.missing,
                "state": state.status,
            }
            for state in states
        ],
        total=sum(state.file.remote.size for state in states),
        missing=sum(state.missing for state in states),
        free=free,
        left_out=[{"repo": file.repo, "path": file.path, "bytes": file.size} for file in selection.left_out],
        notes=list(selection.notes),
    )


def selection_text(ready: DownloadReady) -> str:
    """Format the files, one per line, and the totals."""
    lines = []
    for repo in dict.fromkeys(file["repo"] for file in ready.files):
        files = [file for file in ready.files if file["repo"] == repo]
        lines.append(f"{repo} ({files[0]['commit'][:12]})")
        width = max(len(file["target"]) for file in files)
        for file in files:
            what = file["component"] + (f" ({file['precision']})" if file["precision"] else "")
            state = _WORDS[file["state"]]
            if file["state"] == "begun":
                state = f"{format_size(file['bytes'] - file['missing'])} present"
            notes = ", ".join(part for part in (what, state) if part)
            lines.append(f"  {file['target']:<{width}}  {format_size(file['bytes']):>11}  {notes}".rstrip())
    lines += [f"note: {note}" for note in ready.notes]
    if ready.left_out:
        names = ", ".join(file["path"] for file in ready.left_out[:6])
        more = f" and {len(ready.left_out) - 6} more" if len(ready.left_out) > 6 else ""
        size = format_size(sum(file["bytes"] for file in ready.left_out))
        lines.append(f"left out: {names}{more} ({size})")
    count = f"{len(ready.files)} file{'s' if len(ready.files) != 1 else ''}"
    lines.append(
        f"{count}, {format_size(ready.total)}; {format_size(ready.missing)} to download to {ready.folder} "
        f"({format_size(ready.free)} free)"
    )
    return "\n".join(map(escaped, lines))


def catalog_text(entries: Sequence[CatalogEntry]) -> str:
    """Format the catalog, one entry per line."""
    if not entries:
        return "no loaded plugin lists a repository; repositories of the hub are given as owner/name"
    rows = [
        (entry.name, "/".join(entry.repository.tasks), ", ".join(entry.precisions), entry.repository.repo)
        for entry in entries
    ]
    rows = [
        (escaped(name), escaped(tasks), escaped(precisions), escaped(repo))
        for name, tasks, precisions, repo in rows
    ]
    rows.insert(0, ("NAME", "TASK", "PRECISION", "REPOSITORY"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    )


def catalog_json(entries: Sequence[CatalogEntry]) -> str:
    """Format the catalog as one line of JSON."""
    return json.dumps(
        [
            {
                "name": entry.name,
                "model": entry.model.name,
                "repo": entry.repository.repo,
                "kind": entry.repository.kind,
                "tasks": list(entry.repository.tasks),
                "precisions": list(entry.precisions),
                "distilled": entry.repository.distilled,
                "summary": entry.repository.summary,
            }
            for entry in entries
        ]
    )


def commands(
    folder: Path, entry: CatalogEntry | None, request: DownloadRequest, selection: FileSelection
) -> list[str]:
    """Build the command lines that plan and run the downloaded model."""
    from lightx2v_core.api import input_options  # late: imports the modules of configurations

    if entry is not None and entry.repository.kind in ("lora", "part"):
        return [f"lightx2v-core run --model-path MODEL{_adapters(folder, selection)} --prompt TEXT"]
    line = f"--model-path {shlex.quote(str(folder))}"
    if entry is None:
        return [f"lightx2v-core plan {line}"]
    task = request.task or entry.repository.tasks[0]
    if len(entry.model.tasks) > 1:
        line += f" --task {task}"
    line += "".join(f" {option}" for option in input_options(entry.model.tasks[task].required))
    line += _precision(selection)
    return [f"lightx2v-core plan {line}", f"lightx2v-core run {line} --prompt TEXT --output video.mp4"]


def _adapters(folder: Path, selection: FileSelection) -> str:
    """Build the ``--lora`` options for the LoRA files, with the expert as a prefix where a file is for one."""
    text = ""
    for file in selection.files:
        if "lora" in file.component:
            expert = next((f"{name}:" for name in ("high", "low") if file.component.startswith(name)), "")
            text += f" --lora {expert}{shlex.quote(str(folder / file.target))}"
    return text


def _precision(selection: FileSelection) -> str:
    """Build the ``--set`` options that select one of several precisions of a component, the last."""
    by_component: dict[str, list[str]] = {}
    for file in selection.files:
        precisions = by_component.setdefault(file.component, [])
        if file.precision and file.precision not in precisions:
            precisions.append(file.precision)
    return "".join(
        " --set " + shlex.quote(f'components.{component}.precision="{precisions[-1]}"')
        for component, precisions in by_component.items()
        if len(precisions) > 1
    )
