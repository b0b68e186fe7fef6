"""Unfinished files: a hidden folder next to the result, which survives a kill and is resumed by the next run.

Every file is a ``.part`` until all of them are complete; then they become the result by renaming. The progress of each
file is noted after its bytes are on the disk, so noted bytes always exist. The notes list every written file;
``custody`` verifies the ownership of the folder with them.
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

#: bytes between two notes of the progress
_NOTE = 1 << 28
#: suffix of written files
WRITTEN = ".safetensors"
#: suffixes of other weight files, or of files that a user may expect; folder names may contain dots too
_WRITTEN_ELSEWHERE = frozenset(
    ".pth .pt .pkl .ckpt .bin .gguf .onnx .npz .npy .h5 .msgpack .json .zip .tar .gz .safetensor .sft".split()
)
Pieces = Callable[[OutputTensor], Iterator[memoryview]]


class Workspace:
    """The work folder of a result.

    ``job`` identifies the conversion: another job restarts. ``names`` are the files to write, ``others`` further files
    of an output folder.
    """

    def __init__(self, output: Path, job: str, names: Sequence[str], others: Sequence[str]) -> None:
        self.output = output
        self.folder = _folder(output)
        self._notes: dict[str, Any] = {
            MARK: FORMAT, "job": job, "names": list(names), "others": list(others), "files": {}, "report": {}
        }  # fmt: skip
        self._open: OpenWorkspace | None = None

    @property
    def report(self) -> dict[str, Any]:
        """Return the errors measured so far, by layer; stored in the notes."""
        report: dict[str, Any] = self._notes["report"]
        return report

    def open(self) -> int:
        """Begin or resume the conversion. Returns the bytes of tensors already written.

        Raises ``RequestError`` if another process uses the folder, or if it is not the work folder of a conversion,
        which is then left unchanged.
        """
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
        """Release the folder and keep its content."""
        if self._open is not None:
            uninterrupted(self._open.close)
            self._open = None

    def write(self, file: OutputFile, pieces: Pieces, on_tensor: Callable[[OutputTensor], None]) -> None:
        """Write a file, or its missing part."""
        with failures_as(self.output):
            name, head, folder = f"{file.name}.part", file.head(), self._fd
            known = self._notes["files"].get(file.name, {"tensors": 0, "bytes": 0})
            there, whole = _size(name, folder), _size(f"{WHOLE}/{file.name}", folder)
            if there is None and whole == len(head) + file.nbytes and known["tensors"] == len(file.tensors):
                return  # completed before a kill
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
        """Publish the result: ``files``, small files and copies, by a single rename of a file or an assembled folder.

        ``named`` is called afterwards; a signal that arrives meanwhile takes effect after that.
        """
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
        """Create the folder or open the existing one, and lock it."""
        with failures_as(self.output):
            make_parents(self.folder)
            while self._open is None:  # retry if its owner removed it meanwhile
                with suppress(FileExistsError):
                    os.mkdir(self.folder, 0o700)
                with suppress(FileNotFoundError):
                    self._open = open_workspace(self.folder, self.output)

    def _assemble(
        self, files: Sequence[str], others: Mapping[str, bytes], copies: Mapping[str, Path]
    ) -> None:
        """Assemble the files of a folder."""
        with suppress(FileExistsError):
            os.mkdir(WHOLE, 0o777, dir_fd=self._fd)
        whole = os.open(WHOLE, FOLDER, dir_fd=self._fd)
        try:
            for name in files:
                with suppress(FileNotFoundError):  # renamed before a kill
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
        with suppress(OSError):  # the result exists; remains are removed next time
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
    """Remove the work folder of a conversion that was killed after publishing. Leave any other alone."""
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
    """Return the size of a file in an open folder; ``None`` if it does not exist."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def _new(name: str, folder: int) -> BinaryIO:
    """Create or truncate a file in an open folder."""
    return os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | PLAIN, 0o666, dir_fd=folder), "wb")


def _folder(output: Path) -> Path:
    return output.parent / f".{output.name}.converting"


def is_file(output: Path) -> bool:
    """Return whether ``output`` names a file rather than a folder.

    Raises ``RequestError`` for other file types: nothing would find a folder with such a name.
    """
    suffix = output.suffix.lower()
    if suffix in _WRITTEN_ELSEWHERE and not output.is_dir():
        raise RequestError(
            f"output {str(output)!r}: only safetensors files are written; use the name "
            f"{output.with_suffix(WRITTEN).name}, which is found in the same places, or a folder"
        )
    return suffix == WRITTEN


def check_output(output: Path, *, folder: bool, overwrite: bool) -> None:
    """Raise ``RequestError`` if the result cannot be written to ``output``."""
    if folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestError(f"output {str(output)!r} already exists; choose a new or empty folder")
    if not folder and output.is_dir():
        raise RequestError(
            f"output {str(output)!r} is a folder; choose a file name that ends in .safetensors"
        )
    if not folder and output.exists() and not overwrite:
        raise RequestError(f"output {str(output)!r} already exists; use --overwrite to replace it")
    above = next((parent for parent in output.absolute().parents if parent.exists()), Path("/"))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RequestError(f"output {str(output)!r} cannot be written: {above} is not a writable folder")


@contextmanager
def failures_as(output: Path) -> Iterator[None]:
    """Raise ``OutputError`` for errors of the file system."""
    try:
        yield
    except OSError as exc:
        raise OutputError(
            f"{str(output)!r} could not be written: {exc.strerror or exc}; the progress is kept: repeat the command to "
            "resume"
        ) from exc


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
