"""Files in the making: a hidden folder beside the result, which survives a kill and is gone on with the next time.

Every file is a ``.part`` until all of them are whole; then they become the result by renaming. How far each has come
is noted after its bytes are on the disk, so what a note speaks of is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lightx2v_core.convert.target import OutFile, OutTensor
from lightx2v_core.errors import OutputError, RequestError

#: bytes after which the way done is noted
_NOTE = 1 << 28
_NOTES = "progress.json"
Pieces = Callable[[OutTensor], Iterator[memoryview]]


class Workspace:
    """The folder where a result is made. ``job`` says what for: another job starts anew."""

    def __init__(self, output: Path, job: str) -> None:
        self.output = output
        self.folder = output.parent / f".{output.name}.converting"
        self._job = job
        self._notes: dict[str, Any] = {"job": job, "files": {}, "report": {}}

    @property
    def report(self) -> dict[str, Any]:
        """What was measured so far, by layer; kept with the notes."""
        found: dict[str, Any] = self._notes["report"]
        return found

    def open(self) -> int:
        """Begin, or go on. Returns the bytes of tensors that are there already."""
        with failures_as(self.output):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                notes = json.loads((self.folder / _NOTES).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                notes = None
            if isinstance(notes, dict) and notes.get("job") == self._job:
                self._notes = notes
                done = notes["files"].values()
                return sum(int(item["bytes"]) for item in done)
            for entry in self.folder.iterdir():  # left by another job
                entry.unlink() if entry.is_file() else shutil.rmtree(entry)
            self._note()
            return 0

    def write(self, file: OutFile, pieces: Pieces, on_tensor: Callable[[OutTensor], None]) -> None:
        """Write a file, or what is missing of it."""
        with failures_as(self.output):
            path, head = self.folder / f"{file.name}.part", file.head()
            known = self._notes["files"].get(file.name, {"tensors": 0, "bytes": 0})
            start = int(known["tensors"]) if path.is_file() else 0
            position = len(head) + sum(tensor.nbytes for tensor in file.tensors[:start])
            if start and path.stat().st_size < position:
                start, position = 0, len(head)
            with path.open("r+b" if start else "wb") as stream:
                if start:
                    stream.truncate(position)
                    stream.seek(position)
                else:
                    stream.write(head)
                self._write(file, stream, start, pieces, on_tensor)

    def publish(
        self, files: Mapping[str, str], others: Mapping[str, bytes], copies: Mapping[str, Path]
    ) -> None:
        """Let the result appear: ``files`` (name in the making -> final name), small files, and copies of files. One
        file takes its place by one renaming; several become a folder, by one renaming too."""
        with failures_as(self.output):
            if not others and not copies and len(files) == 1 and self.output.suffix:
                (name,) = files
                os.replace(self.folder / f"{name}.part", self.output)
            else:
                whole = self.folder / "whole"
                whole.mkdir(exist_ok=True)
                for name, final in files.items():
                    part = self.folder / f"{name}.part"
                    if part.exists():  # else it was renamed before a kill
                        os.replace(part, whole / final)
                for name, source in copies.items():
                    shutil.copyfile(source, whole / name)
                for name, data in others.items():
                    (whole / name).write_bytes(data)
                if self.output.is_dir():
                    self.output.rmdir()  # it is empty
                os.rename(whole, self.output)
            _sync(self.output.parent)
            shutil.rmtree(self.folder)

    def sizes(self, files: list[OutFile]) -> dict[str, int]:
        """Bytes on disk of the files that were written."""
        return {file.name: len(file.head()) + file.nbytes for file in files}

    def _write(
        self,
        file: OutFile,
        stream: BinaryIO,
        start: int,
        pieces: Pieces,
        on_tensor: Callable[[OutTensor], None],
    ) -> None:
        unsaved = 0
        written = sum(tensor.nbytes for tensor in file.tensors[:start])
        for number, tensor in enumerate(file.tensors[start:], start + 1):
            count = 0
            for piece in pieces(tensor):
                stream.write(piece)
                count += len(piece)
            assert count == tensor.nbytes, tensor.name
            written, unsaved = written + count, unsaved + count
            if unsaved >= _NOTE or number == len(file.tensors):
                stream.flush()
                os.fsync(stream.fileno())
                self._notes["files"][file.name] = {"tensors": number, "bytes": written}
                self._note()
                unsaved = 0
            on_tensor(tensor)

    def _note(self) -> None:
        temporary = self.folder / f"{_NOTES}.new"
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(self._notes, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.folder / _NOTES)


def check_output(output: Path, *, folder: bool, overwrite: bool) -> None:
    """``RequestError`` when the result cannot go to ``output``."""
    if folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestError(f"output {str(output)!r} is there already; name a folder that is new or empty")
    if not folder and output.is_dir():
        raise RequestError(f"output {str(output)!r} is a folder; name a file that ends in .safetensors")
    if not folder and output.exists() and not overwrite:
        raise RequestError(f"output {str(output)!r} is there already; --overwrite replaces it")
    above = next((parent for parent in output.absolute().parents if parent.exists()), Path("/"))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RequestError(
            f"output {str(output)!r} cannot be written: {above} is no folder that can be written to"
        )


@contextmanager
def failures_as(output: Path) -> Iterator[None]:
    """A failing file system as an ``OutputError``."""
    try:
        yield
    except OSError as exc:
        raise OutputError(
            f"{str(output)!r} could not be written: {exc.strerror or exc}; what is done is kept, and the same command "
            "goes on from there"
        ) from exc


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
