"""Where a result goes, decided and checked before anything is computed."""

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
_LONGEST_NAME = 250  # bytes; file systems take 255, and the record's suffix may be longer


def planned_output(config: OutputConfig, variant: str, request: Request) -> PlannedOutput:
    """The output of a request. ``RequestError`` for a name, size or place that cannot work."""
    output = named_output(config, variant, request)
    check_place(output)
    return output


def named_output(config: OutputConfig, variant: str, request: Request) -> PlannedOutput:
    """The output of a request, wherever that is. ``RequestError`` for a name or size that cannot work."""
    path = _expanded(config.path) if config.path is not None else _free_name(variant, request)
    kind = _kind(config.path, path, request.frames)
    if kind == "mp4" and (request.width % 2 or request.height % 2):
        raise RequestError(
            f"H.264 needs an even width and height, not {request.width}x{request.height}; "
            "choose another --size or a folder of PNGs as --output"
        )
    if kind == "mp4" and frame_rate(request.fps) == 0:
        raise RequestError(f"an .mp4 cannot have {request.fps:g} frames a second; the least is 0.001")
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
    """``RequestError`` when an output cannot be where it is to be. ``tried``: folders in which a file could be made
    before, and which need not be tried again; this one is added."""
    path = Path(output.path)
    check_writable(path, folder=output.kind == "frames", tried=tried)
    if output.record:
        _check_record(record_path(path, output.kind))
    if output.replaces and not output.overwrite:
        raise RequestError(
            f"output {_short(Path(output.replaces[0]))} is there already, and is not to be replaced (--no-overwrite, "
            "output.overwrite); name another --output, or move it away"
        )


def frame_rate(fps: float) -> Fraction:
    """A frame rate as MP4 holds it: 23.976 is 2997/125."""
    return Fraction(fps).limit_denominator(1001)


def record_path(path: Path, kind: str) -> Path:
    """Where the record of an output lies: ``fox.mp4`` -> ``fox.json``; inside a folder of frames, ``record.json``."""
    return path / "record.json" if kind == "frames" else path.with_suffix(".json")


def check_writable(path: Path, *, folder: bool = False, tried: set[Path] | None = None) -> None:
    """``RequestError`` when ``path`` cannot be created; missing parent folders would be made. ``tried`` is as in
    ``check_place``."""
    tried = set() if tried is None else tried
    try:
        _check_name(path, folder)
        if path.parent not in tried:
            _check_folder(path)
            tried.add(path.parent)
    except OSError as exc:
        raise RequestError(f"output {_short(path)} cannot be written: {exc.strerror or exc}") from None


def check_dump(path: Path, *, overwrite: bool = True) -> None:
    """``RequestError`` when the tensors of ``--dump-tensors`` cannot go to ``path``."""
    if path.suffix.lower() != ".safetensors":
        raise RequestError(f"--dump-tensors {_short(path)} has to end in .safetensors")
    check_writable(path)
    if not overwrite and os.path.lexists(path):
        raise RequestError(
            f"--dump-tensors {_short(path)} is there already, and is not to be replaced (--no-overwrite); name another"
        )


def _check_name(path: Path, folder: bool) -> None:
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise RequestError(f"output {_short(path)}: the name is too long; {_LONGEST_NAME} bytes are possible")
    if path.is_dir() and not folder:
        raise RequestError(f"output {str(path)!r} is a folder where a file is wanted")
    if path.exists() and not path.is_dir() and folder:
        raise RequestError(f"output {str(path)!r} is a file where a folder is wanted")
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
    try:  # permissions do not tell everything, of /proc or of a full quota: hours later would be a bad time to learn
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        raise RequestError(
            f"output {str(path)!r} cannot be written: no file can be made in {str(there)!r} "
            f"({exc.strerror or exc})"
        ) from None


def _check_replaceable(folder: Path) -> None:
    """Frames appear as a whole: a new folder takes the place of one that is there, which has to be empty for that."""
    held = sorted(entry.name for entry in folder.iterdir())
    if any(_FRAME.fullmatch(name) for name in held):
        raise RequestError(
            f"output folder {str(folder)!r} already holds frames; name an empty or a new folder"
        )
    if held:
        more = f" and {len(held) - 3} more" if len(held) > 3 else ""
        raise RequestError(
            f"output folder {str(folder)!r} already holds {', '.join(map(repr, held[:3]))}{more}; name an empty or a "
            f"new folder, such as {str(folder / 'frames')!r}"
        )
    if os.path.ismount(folder) or folder == Path(os.path.realpath(".")):
        raise RequestError(
            f"output folder {str(folder)!r} cannot be replaced by one with frames: a file system or this process is in "
            f"it; name a new folder, such as {str(folder / 'frames')!r}"
        )


def is_record(path: Path) -> bool:
    """Whether a file is a run record."""
    try:
        with path.open("rb") as file:
            return _RECORD_KEY in file.read(200)
    except OSError:
        return False


def _check_record(path: Path) -> None:
    """The record's name follows from the output's, so it must not hit a file that somebody else wrote."""
    if os.path.lexists(path) and not (path.is_file() and is_record(path)):
        raise RequestError(
            f"the run record would replace {str(path)!r}, which is no run record; "
            "choose another --output or --no-record"
        )


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise RequestError(f"output {text!r}: there is no such user") from None


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
                f"output {str(path)!r} is one image and the request has {frames} frames; "
                "use .mp4, a folder (a name that ends in /), or --frames 1"
            )
        return "png"
    if suffix == "":
        raise RequestError(
            f"output {_short(path)} has no suffix: end it in .mp4 or .png, or in / for a folder of PNGs"
        )
    raise RequestError(
        f"output {_short(path)}: unknown kind {suffix[:20]!r}; use .mp4, .png, or a folder (ending in /)"
    )


def _free_name(variant: str, request: Request) -> Path:
    """A name in the current folder that is not taken yet, nor is by a run that is still at work."""
    suffix = ".png" if request.frames == 1 else ".mp4"
    stem = f"{variant}_seed{request.seed}"
    names = (f"{stem}{suffix}" if i == 1 else f"{stem}_{i}{suffix}" for i in range(1, 100_000))
    return next(
        path
        for path in map(Path, names)
        if not any(os.path.lexists(name) or is_claimed(name) for name in (path, path.with_suffix(".json")))
    )
