"""The output path of a run, determined and checked before any computation."""

from __future__ import annotations

import os
import re
import tempfile
from fractions import Fraction
from pathlib import Path

from lightx2v_core.checkpoint.staging import is_claimed
from lightx2v_core.config.model import OutputConfig
from lightx2v_core.errors import RequestError
from lightx2v_core.plan.plan import PlannedOutput
from lightx2v_core.spec.request import Request

_FRAME = re.compile(r"\d{5,}\.png")
_RECORD_KEY = b'"lightx2v_record"'
_LONGEST_NAME = 250  # bytes; file systems allow 255, and the record's suffix may be longer


def planned_output(config: OutputConfig, variant: str, request: Request) -> PlannedOutput:
    """Determine the output of a request. Raises ``RequestError`` for a bad name, size or place."""
    output = named_output(config, variant, request)
    check_place(output)
    return output


def named_output(config: OutputConfig, variant: str, request: Request) -> PlannedOutput:
    """Determine the output of a request without access checks. Raises ``RequestError`` for a bad name or size."""
    path = _expanded(config.path) if config.path is not None else _free_name(variant, request)
    kind = _kind(config.path, path, request.frames)
    if kind == "mp4" and (request.width % 2 or request.height % 2):
        raise RequestError(
            f"H.264 needs an even width and height, not {request.width}x{request.height}; "
            "choose another --size or a folder of PNGs as --output"
        )
    if kind == "mp4" and frame_rate(request.fps) == 0:
        raise RequestError(f"an .mp4 cannot have {request.fps:g} frames per second; the minimum is 0.001")
    files = [path] if kind != "frames" else []  # a folder of frames is new, or empty
    if files and config.record:
        files.append(record_path(path, kind))
    return PlannedOutput(
        path=str(path),
        kind=kind,
        record=config.record,
        crf=config.crf,
        replaces=tuple(str(file) for file in files if os.path.lexists(file)),
        overwrite=config.overwrite,
    )


def check_place(output: PlannedOutput, tried: set[Path] | None = None) -> None:
    """Raise ``RequestError`` if the output cannot be written to its path.

    ``tried`` holds folders that are known to be writable and are not checked again; the parent folder is added to it.
    """
    path = Path(output.path)
    check_writable(path, folder=output.kind == "frames", tried=tried)
    if output.record:
        _check_record(record_path(path, output.kind))
    if output.replaces and not output.overwrite:
        raise RequestError(
            f"output {_short(Path(output.replaces[0]))} already exists and must not be replaced (--no-overwrite, "
            "output.overwrite); choose another --output, or move it"
        )


def frame_rate(fps: float) -> Fraction:
    """Convert a frame rate to the fraction that an MP4 stores: 23.976 is 2997/125."""
    return Fraction(fps).limit_denominator(1001)


def record_path(path: Path, kind: str) -> Path:
    """Return the path of an output's run record: ``fox.mp4`` -> ``fox.json``; ``record.json`` in a folder of frames."""
    return path / "record.json" if kind == "frames" else path.with_suffix(".json")


def check_writable(path: Path, *, folder: bool = False, tried: set[Path] | None = None) -> None:
    """Raise ``RequestError`` if ``path`` cannot be created; a run creates missing parent folders.

    ``tried`` is as in ``check_place``.
    """
    tried = set() if tried is None else tried
    try:
        _check_name(path, folder)
        if path.parent not in tried:
            _check_folder(path)
            tried.add(path.parent)
    except OSError as exc:
        raise RequestError(f"output {_short(path)} cannot be written: {exc.strerror or exc}") from None


def check_dump(path: Path, *, overwrite: bool = True) -> None:
    """Raise ``RequestError`` if the tensors of ``--dump-tensors`` cannot be written to ``path``."""
    if path.suffix.lower() != ".safetensors":
        raise RequestError(f"--dump-tensors {_short(path)} must end in .safetensors")
    check_writable(path)
    if not overwrite and os.path.lexists(path):
        raise RequestError(
            f"--dump-tensors {_short(path)} already exists and must not be replaced (--no-overwrite); choose another"
        )


def _check_name(path: Path, folder: bool) -> None:
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise RequestError(f"output {_short(path)}: the name is too long; at most {_LONGEST_NAME} bytes")
    if path.is_dir() and not folder:
        raise RequestError(f"output {str(path)!r} is a folder; a file is required")
    if path.exists() and not path.is_dir() and folder:
        raise RequestError(f"output {str(path)!r} is a file; a folder is required")
    if folder and path.is_dir():
        _check_replaceable(Path(os.path.realpath(path)))


def _check_folder(path: Path) -> None:
    there = next((p for p in path.absolute().parents if os.path.lexists(p)), Path("/"))
    if not there.is_dir():
        raise RequestError(f"output {str(path)!r} cannot be written: {str(there)!r} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RequestError(
            f"output {str(path)!r} cannot be written: no permission to write in {str(there)!r}"
        )
    try:  # permissions do not cover /proc or a full quota, which would otherwise fail hours later
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        raise RequestError(
            f"output {str(path)!r} cannot be written: no file can be created in {str(there)!r} "
            f"({exc.strerror or exc})"
        ) from None


def _check_replaceable(folder: Path) -> None:
    """Raise ``RequestError`` unless ``folder`` is empty and the finished folder of frames can replace it."""
    held = sorted(entry.name for entry in folder.iterdir())
    if any(_FRAME.fullmatch(name) for name in held):
        raise RequestError(
            f"output folder {str(folder)!r} already contains frames; choose an empty or a new folder"
        )
    if held:
        more = f" and {len(held) - 3} more" if len(held) > 3 else ""
        raise RequestError(
            f"output folder {str(folder)!r} already contains {', '.join(map(repr, held[:3]))}{more}; choose an empty "
            f"or a new folder, such as {str(folder / 'frames')!r}"
        )
    if os.path.ismount(folder) or folder == Path(os.path.realpath(".")):
        raise RequestError(
            f"output folder {str(folder)!r} cannot be replaced: it is a mount point or the working directory; "
            f"choose a new folder, such as {str(folder / 'frames')!r}"
        )


def is_record(path: Path) -> bool:
    """Return True if a file is a run record."""
    try:
        with path.open("rb") as file:
            return _RECORD_KEY in file.read(200)
    except OSError:
        return False


def _check_record(path: Path) -> None:
    """Raise ``RequestError`` if the record would replace another file: its name follows from the output's."""
    if os.path.lexists(path) and not (path.is_file() and is_record(path)):
        raise RequestError(
            f"the run record would replace {str(path)!r}, which is not a run record; "
            "choose another --output or --no-record"
        )


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise RequestError(f"output {text!r}: no such user") from None


def _short(path: Path) -> str:
    text = str(path)
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."


def _kind(text: str | None, path: Path, frames: int) -> str:
    if os.path.isdir(path) or (text is not None and text.endswith(("/", os.sep))):
        return "frames"
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return "mp4"
    if suffix == ".png":
        if frames != 1:
            raise RequestError(
                f"output {str(path)!r} is a single image, but the request has {frames} frames; "
                "use .mp4, a folder (ending in /), or --frames 1"
            )
        return "png"
    if suffix == "":
        raise RequestError(
            f"output {_short(path)} has no suffix; use .mp4, .png, or a folder of PNGs (ending in /)"
        )
    raise RequestError(
        f"output {_short(path)}: unknown suffix {suffix[:20]!r}; use .mp4, .png, or a folder (ending in /)"
    )


def _free_name(variant: str, request: Request) -> Path:
    """Return an unused name in the current folder, which no running process has claimed either."""
    suffix = ".png" if request.frames == 1 else ".mp4"
    stem = f"{variant}_seed{request.seed}"
    names = (f"{stem}{suffix}" if i == 1 else f"{stem}_{i}{suffix}" for i in range(1, 100_000))
    return next(
        path
        for path in map(Path, names)
        if not any(os.path.lexists(name) or is_claimed(name) for name in (path, path.with_suffix(".json")))
    )
