"""Placeholders in place of files: git-lfs pointers, AppleDouble files of macOS, web pages that a server sent instead of
a file, broken links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lightx2v_core.checkpoint.listing import list_folder
from lightx2v_core.errors import CheckpointError

#: AppleDouble and AppleSingle, RFC 1740
_APPLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
#: depth of the folders below that of a model, and number of folders, that are searched for links
_DEPTH, _FOLDERS = 3, 1000
#: characters of a link's target that a message shows
_SHOWN = 200


def stand_in(path: Path) -> str:
    """Describe a placeholder and what to do about it; empty for a real file, and for a file that cannot be read, which
    the caller reports."""
    try:
        with path.open("rb") as file:
            first = file.read(64)
    except (OSError, ValueError):
        return ""
    if first.startswith(_POINTER):
        return "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull"
    if first.startswith(_APPLE):
        name = path.name.removeprefix("._")
        return f"is an AppleDouble file of macOS, not the file itself{f'; use {name}' * (name != path.name)}"
    if first.lstrip().lower().startswith(_PAGES):
        return "is a web page that a server sent instead of the file; download it again"
    if not first:
        return "is empty; download or copy it again"
    return ""


def not_json(path: Path) -> str:
    """Explain why a file cannot be a JSON object, by its first bytes; empty if it can be one."""
    if reason := stand_in(path):
        return reason
    try:
        with path.open("rb") as file:
            first = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, ValueError) as exc:
        return f"cannot be read: {getattr(exc, 'strerror', None) or exc}"
    return "" if not first or first.startswith(b"{") else "is damaged: it is not a JSON object"


def broken_links(folder: Path) -> str:
    """Describe the broken links in a model's folder in one sentence; empty if there are none."""
    links = list(_dangling(folder))
    if not links:
        return ""
    name, target = links[0]
    some = (
        "1 of its files is a link to a file that does not exist"
        if len(links) == 1
        else f"{len(links)} of its files are links to files that do not exist"
    )
    return (
        f"{some}, such as {name} -> {target[:_SHOWN]}; copy the targets as well (for a snapshot of the hub cache, the "
        "folder 'blobs' too), or download it again"
    )


def _dangling(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name below ``folder`` and the target of each broken link."""
    waiting, seen = [("", 0)], 0
    while waiting and seen < _FOLDERS:
        (below, depth), seen = waiting.pop(0), seen + 1
        try:
            there = list_folder(folder / below)
        except CheckpointError:
            continue
        prefix = f"{below}/" if below else ""
        yield from ((prefix + name, target) for name, target in there.dangling.items())
        if depth < _DEPTH:
            inside = (name for name in there.folders if not os.path.islink(folder / below / name))
            waiting += [(prefix + name, depth + 1) for name in inside]
