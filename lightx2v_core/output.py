"""Where a result goes, decided and checked before anything is computed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lightx2v_core.config.model import OutputConfig
from lightx2v_core.errors import OutputError, RequestError
from lightx2v_core.plan import PlannedOutput
from lightx2v_core.requests import Request

_FRAME = re.compile(r"\d{5}\.png")


def planned_output(config: OutputConfig, variant: str, request: Request) -> PlannedOutput:
    """The output of a request. ``RequestError`` for a name, size or place that cannot work."""
    path = Path(config.path).expanduser() if config.path is not None else _free_name(variant, request)
    kind = _kind(config.path, path, request.frames)
    if kind == "mp4" and (request.width % 2 or request.height % 2):
        raise RequestError(
            f"H.264 needs an even width and height, not {request.width}x{request.height}; "
            "choose another --size or a folder of PNGs as --output"
        )
    check_writable(path, folder=kind == "frames")
    return PlannedOutput(path=str(path), kind=kind, record=config.record, crf=config.crf)


def check_writable(path: Path, *, folder: bool = False) -> None:
    """``RequestError`` when ``path`` cannot be created; missing parent folders would be made."""
    if path.is_dir() and not folder:
        raise RequestError(f"output {str(path)!r} is a folder where a file is wanted")
    if path.exists() and not path.is_dir() and folder:
        raise RequestError(f"output {str(path)!r} is a file where a folder is wanted")
    if folder and path.is_dir() and any(_FRAME.fullmatch(entry.name) for entry in path.iterdir()):
        raise RequestError(f"output folder {str(path)!r} already holds frames; name an empty or a new folder")
    there = next(
        (p for p in ([path] if folder else []) + list(path.absolute().parents) if p.exists()), Path("/")
    )
    if not there.is_dir():
        raise RequestError(f"output {str(path)!r} cannot be written: {str(there)!r} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RequestError(
            f"output {str(path)!r} cannot be written: no permission to write in {str(there)!r}"
        )


def make_parents(path: Path) -> None:
    """Create the folder of a file. ``OutputError`` when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot create folder {str(path.parent)!r}: {exc.strerror or exc}") from None


def _kind(text: str | None, path: Path, frames: int) -> str:
    if path.is_dir() or (text is not None and text.endswith(("/", os.sep))):
        return "frames"
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return "mp4"
    if suffix == ".png":
        if frames != 1:
            raise RequestError(
                f"output {str(path)!r} is one image and the request has {frames} frames; "
                "use .mp4, a folder (a name that ends in /), or --frames 1"
            )
        return "png"
    if suffix == "":
        raise RequestError(
            f"output {str(path)!r} has no suffix: end it in .mp4 or .png, or in / for a folder of PNGs"
        )
    raise RequestError(
        f"output {str(path)!r}: unknown kind {suffix!r}; use .mp4, .png, or a folder (ending in /)"
    )


def _free_name(variant: str, request: Request) -> Path:
    """A name in the current folder that is not taken yet."""
    suffix = ".png" if request.frames == 1 else ".mp4"
    stem = f"{variant}_seed{request.seed}"
    names = (f"{stem}{suffix}" if i == 1 else f"{stem}_{i}{suffix}" for i in range(1, 100_000))
    return next(Path(name) for name in names if not Path(name).exists())
