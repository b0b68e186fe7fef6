"""Files in the making: a hidden folder beside the result, which survives a kill and is gone on with the next time.

Every file is a ``.part`` until all of them are whole; then they become the result by renaming. How far each has come
is noted after its bytes are on the disk, so what a note speaks of is there. The notes name every file that is written;
``custody`` tells by them whose folder it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lightx2v_convert.custody import (
    FOLDER,
    FORMAT,
    MARK,
    NEW_NOTES,
    NOTES,
    PLAIN,
    WHOLE,
    OpenWorkspace,
    open_workspace,
)
from lightx2v_convert.output_files import OutputFile, OutputTensor
from lightx2v_core.api import OutputError, RequestError
from lightx2v_core.weights import make_parents, uninterrupted

#: bytes after which the way done is noted
_NOTE = 1 << 28
#: how a written file ends
WRITTEN = ".safetensors"
#: how other files end that hold weights, or that somebody may want to have made; folders have dots in their names too
_WRITTEN_ELSEWHERE = frozenset(
    ".pth .pt .pkl .ckpt .bin .gguf .onnx .npz .npy .h5 .msgpack .json .zip .tar .gz .safetensor .sft".split()
)
Pieces = Callable[[OutputTensor], Iterator[memoryview]]


class Workspace:
    """The folder where a result is made. ``job`` says what for: another job starts anew. ``names`` are the files in the
    making, ``others`` what comes with them into a folder."""

    def __init__(self, output: Path, job: str, names: Sequence[str], others: Sequence[str]) -> None:
        self.output = output
        self.folder = _folder(output)
        self._notes: dict[str, Any] = {
            MARK: FORMAT, "job": job, "names": list(names), "others": list(others), "files": {}, "report": {}
        }  # fmt: skip
        self._open: OpenWorkspace | None = None

    @property
    def report(self) -> dict[str, Any]:
        """What was measured so far, by layer; kept with the notes."""
        report: dict[str, Any] = self._notes["report"]
        return report

    def open(self) -> int:
        """Begin, or go on. Returns the bytes of tensors that are there already. ``RequestError`` when another process
        is at it, or the folder is not one that a conversion made; it is not touched then."""
        uninterrupted(self._have)
        with failures_as(self.output):
            assert self._open is not None
            notes, job = self._open.notes, self._notes["job"]
            if notes is not None and notes["job"] == job:
                self._notes = notes
                return sum(int(progress["bytes"]) for progress in notes["files"].values())
            self._open.clear(notes)  # left by another job
            self._note()
            return 0

    def close(self) -> None:
        """Let go of the folder; what is in it is kept."""
        if self._open is not None:
            uninterrupted(self._open.close)
            self._open = None

    def write(self, file: OutputFile, pieces: Pieces, on_tensor: Callable[[OutputTensor], None]) -> None:
        """Write a file, or what is missing of it."""
        with failures_as(self.output):
            name, head, folder = f"{file.name}.part", file.head(), self._fd
            known = self._notes["files"].get(file.name, {"tensors": 0, "bytes": 0})
            there, whole = _size(name, folder), _size(f"{WHOLE}/{file.name}", folder)
            if there is None and whole == len(head) + file.nbytes and known["tensors"] == len(file.tensors):
                return  # it was whole before a kill
            start = int(known["tensors"]) if there is not None else 0
            position = len(head) + sum(tensor.nbytes for tensor in file.tensors[:start])
            if start and there is not None and there < position:
                start, position = 0, len(head)
            flags = os.O_RDWR | os.O_CREAT | PLAIN | (0 if start else os.O_TRUNC)
            with os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "r+b") as stream:
                if start:
                    stream.truncate(position)
                    stream.seek(position)
                else:
                    stream.write(head)
                self._write(file, stream, start, pieces, on_tensor)

    def publish(
        self,
        files: Sequence[str],
        others: Mapping[str, bytes],
        copies: Mapping[str, Path],
        overwrite: bool = False,
        named: Callable[[], None] = lambda: None,
        *,
        folder: bool,
    ) -> None:
        """Let the result appear: ``files``, small files, and copies of files. One file takes its place by one renaming;
        a ``folder`` is put together and gets its name by one renaming too. ``named`` is called then; a signal that
        arrives meanwhile has an effect afterwards."""
        with failures_as(self.output):
            if not folder:
                (name,) = files
                check_output(self.output, folder=False, overwrite=overwrite)  # hours may have passed
                source = f"{name}.part"
            else:
                source = WHOLE
                self._assemble(files, others, copies)
            uninterrupted(partial(self._finish, source, named))

    def _write(
        self,
        file: OutputFile,
        stream: BinaryIO,
        start: int,
        pieces: Pieces,
        on_tensor: Callable[[OutputTensor], None],
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

    @property
    def _fd(self) -> int:
        assert self._open is not None
        return self._open.folder

    def _have(self) -> None:
        """Make the folder, or open the one that is there, and lock it."""
        with failures_as(self.output):
            make_parents(self.folder)
            while self._open is None:  # anew when whoever had it removed it meanwhile
                with suppress(FileExistsError):
                    os.mkdir(self.folder, 0o700)
                with suppress(FileNotFoundError):
                    self._open = open_workspace(self.folder, self.output)

    def _assemble(
        self, files: Sequence[str], others: Mapping[str, bytes], copies: Mapping[str, Path]
    ) -> None:
        """Put the files of a folder together."""
        with suppress(FileExistsError):
            os.mkdir(WHOLE, 0o777, dir_fd=self._fd)
        whole = os.open(WHOLE, FOLDER, dir_fd=self._fd)
        try:
            for name in files:
                with suppress(FileNotFoundError):  # it was renamed before a kill
                    os.replace(f"{name}.part", name, src_dir_fd=self._fd, dst_dir_fd=whole)
            for name, source in copies.items():
                with source.open("rb") as read, _new(name, whole) as stream:
                    shutil.copyfileobj(read, stream)
            for name, data in others.items():
                with _new(name, whole) as stream:
                    stream.write(data)
        finally:
            os.close(whole)

    def _finish(self, source: str, named: Callable[[], None]) -> None:
        os.replace(source, self.output, src_dir_fd=self._fd)
        named()
        assert self._open is not None
        with suppress(OSError):  # the result is there; what is not removed now is removed the next time
            _sync(self.output.absolute().parent)
            self._open.clear(self._notes)
            os.unlink(NOTES, dir_fd=self._fd)
        self._open.close()
        self._open = None
        with suppress(OSError):
            os.rmdir(self.folder)

    def _note(self) -> None:
        try:
            with _new(NEW_NOTES, self._fd) as stream:
                stream.write(json.dumps(self._notes).encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(NEW_NOTES, NOTES, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(NEW_NOTES, dir_fd=self._fd)
            raise


def tidy(output: Path) -> None:
    """Remove the folder of a conversion that was killed when its result had its name. Any other is left alone."""
    folder = _folder(output)
    if not output.exists() or not folder.is_dir():
        return
    try:
        workspace = open_workspace(folder, output)
    except (RequestError, OSError):
        return
    unfinished = workspace.unfinished
    with suppress(OSError):
        if not unfinished:
            workspace.clear(workspace.notes)
            with suppress(FileNotFoundError):
                os.unlink(NOTES, dir_fd=workspace.folder)
    workspace.close()
    if not unfinished:
        with suppress(OSError):
            os.rmdir(folder)


def _size(name: str, folder: int) -> int | None:
    """The size of a file in an open folder; ``None`` when there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def _new(name: str, folder: int) -> BinaryIO:
    """A file of that name in an open folder, written anew."""
    return os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | PLAIN, 0o666, dir_fd=folder), "wb")


def _folder(output: Path) -> Path:
    return output.parent / f".{output.name}.converting"


def is_file(output: Path) -> bool:
    """Whether ``output`` is a file and no folder. ``RequestError`` for the name of a file that is not written here: a
    folder of that name would be found by nothing."""
    suffix = output.suffix.lower()
    if suffix in _WRITTEN_ELSEWHERE and not output.is_dir():
        raise RequestError(
            f"output {str(output)!r}: only safetensors files are written; name it "
            f"{output.with_suffix(WRITTEN).name}, which is looked for in the same places, or name a folder"
        )
    return suffix == WRITTEN


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
