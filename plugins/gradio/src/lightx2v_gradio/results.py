"""The output folder: names of results, and the files that may be served."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lightx2v_core.api import RequestError

#: names that a browser may request
_RESULT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,150}\.(mp4|png|json)")
#: folder of uploads below the output folder
UPLOADS = "uploads"


def output_folder(path: str) -> Path:
    """Return the folder for results, created if missing. ``RequestError`` for an unusable one."""
    folder = Path(path).expanduser()
    try:
        (folder / UPLOADS).mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RequestError(f"cannot create output folder {path!r}: {exc.strerror or exc}") from None
    return folder.resolve()


def free_name(prompt: str, seed: int, *, one_frame: bool, now: datetime) -> str:
    """Build a file name from time, prompt and seed, unique and impossible to guess."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", plain)[:6])[:40].strip("-")
    parts = [now.strftime("%Y%m%d-%H%M%S"), *([words] if words else []), f"seed{seed}", secrets.token_hex(4)]
    return "_".join(parts) + (".png" if one_frame else ".mp4")


def result_path(folder: Path, name: str) -> Path | None:
    """Return the file of the output folder that a browser requests by ``name``; None for one that it may not have:
    a path elsewhere, another file type, a link, a missing file."""
    if not _RESULT_NAME.fullmatch(name):
        return None
    path = folder / name
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return path if stat.S_ISREG(status.st_mode) else None


def upload_path(folder: Path, path: str) -> Path | None:
    """Return the upload at ``path`` (absolute, in the form that the page writes); None for a path elsewhere, also
    through links or ``..``."""
    if "\0" in path or not os.path.isabs(path) or ".." in Path(path).parts:
        return None
    uploads = folder / UPLOADS
    try:
        real = Path(os.path.realpath(path))
        inside = real.is_relative_to(os.path.realpath(uploads)) and real.is_file()
    except OSError:
        return None
    return real if inside and not os.path.islink(path) else None


def read_record(folder: Path, name: str) -> Mapping[str, Any]:
    """Read the run record of a result; empty without one."""
    path = result_path(folder, str(Path(name).with_suffix(".json")))
    if path is None:
        return {}
    record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
