"""torch.save files (.pth): a zip archive of a pickled index and raw storages.

The index is *read*, never unpickled: a small interpreter (``pickle_index``) follows its opcodes, supports the few
names used for tensors and rejects all others. The storages are plain bytes at known offsets, read like those of a
safetensors file, without ``torch.load``.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import frozen

from lightx2v_core.api import DTYPE_BYTES, CheckpointError, Header, OpenFiles, RunError, TensorInfo
from lightx2v_core.builtin.pickle_index import StoredTensor, UnsafePickle, read_index

if TYPE_CHECKING:
    from torch import Tensor

#: keys under which training code wraps a state dict
WRAPPERS = ("state_dict", "model_state")
_MAX_INDEX = 100_000_000  # as for the header of a safetensors file
_MAX_DIRECTORY = 1 << 25  # the zip directory: 100,000 tensors need 10 MB, or 20 MB with long names
_MAX_WRAPPERS = 8
#: bytes of the end record of an archive, before its comment; marker for a length stored in the zip64 record
_END_RECORD, _SEE_ZIP64 = 22, (1 << 32) - 1
#: maximum length of a name in a message, in characters
_SHOWN = 200
_LFS_POINTER = b"version https://git-lfs"


@frozen
class Entry:
    """A stored tensor: its layout in its storage, and the file offset of its first element in bytes."""

    stored: StoredTensor
    position: int


def read_header(path: Path) -> Header:
    """Read the header of one file. Raises ``CheckpointError`` if it is damaged or contains anything but tensors."""
    return Header(
        tensors={
            name: TensorInfo(
                name=name,
                shape=entry.stored.shape,
                dtype=entry.stored.dtype,
                file=path,
                offset=entry.position,
            )
            for name, entry in read_entries(path).items()
        }
    )


def read_entries(path: Path) -> dict[str, Entry]:
    """Read layout and position of every tensor in a file. Raises ``CheckpointError`` as ``read_header`` does."""
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a git-lfs pointer and not the file itself; fetch it with: git lfs pull"
                )
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                return _entries(path, file, archive)
    except (CheckpointError, MemoryError):
        raise
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from None
    except UnsafePickle as exc:
        raise CheckpointError(f"{path} was rejected, and nothing in it was executed: {exc}") from None
    except Exception as exc:  # zipfile fails in many ways: bad checksum, unknown compression, encryption, ...
        raise CheckpointError(
            f"{path} is not a torch.save file, or is truncated or damaged ({exc}); copy or download it again "
            "(files saved by torch before 1.6 must be saved again)"
        ) from None


def _check_directory(path: Path, file: BinaryIO) -> None:
    """Raise ``CheckpointError`` for an archive with more records than any set of tensors needs.

    zipfile reads the complete directory before it reports the number of records. Files that are not archives are
    left to zipfile.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END_RECORD - (1 << 16), 0))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    length = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if length == _SEE_ZIP64:
        wide = tail.rfind(b"PK\x06\x06", 0, at)
        length = int.from_bytes(tail[wide + 40 : wide + 48], "little") if wide >= 0 else 0
    if length > _MAX_DIRECTORY:
        raise CheckpointError(
            f"{path} was rejected: its archive directory is larger than any set of tensors needs"
        )
    file.seek(0)


def _entries(path: Path, file: BinaryIO, archive: zipfile.ZipFile) -> dict[str, Entry]:
    records = {entry.filename: entry for entry in archive.infolist()}
    index = next((name for name in records if name.endswith("/data.pkl")), None)
    if index is None:
        raise CheckpointError(f"{path} is not a torch.save file: the archive has no data.pkl")
    if records[index].file_size > _MAX_INDEX:
        raise CheckpointError(f"{path} was rejected: its index is larger than any set of tensors needs")
    folder = index.removesuffix("data.pkl")
    record = records.get(f"{folder}byteorder")
    order = b"little" if record is None else archive.read(record) if record.file_size < 8 else b""
    if order != sys.byteorder.encode():
        raise CheckpointError(
            f"{path} was written with another byte order than that of this machine; save it again"
        )
    state = unwrapped(read_index(archive.read(index)))
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path} contains {_kind(state)} instead of named tensors")
    size = os.fstat(file.fileno()).st_size
    starts: dict[str, int] = {}
    entries = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, StoredTensor):
            raise CheckpointError(
                f"{path} was rejected, and nothing in it was executed: {str(name)[:_SHOWN]!r} is not a tensor but "
                f"{_kind(tensor)}"
            )
        record = records.get(f"{folder}data/{tensor.storage}")
        if record is None or record.file_size < tensor.storage_bytes:
            raise CheckpointError(
                f"{path} is damaged: the storage of {name[:_SHOWN]!r} is missing or too short"
            )
        if record.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{path} is compressed, which torch does not support; save it with torch.save"
            )
        if tensor.storage not in starts:
            starts[tensor.storage] = _data_start(file, record)
        if starts[tensor.storage] + tensor.storage_bytes > size:
            raise CheckpointError(f"{path} is truncated: the storage of {name[:_SHOWN]!r} is cut off")
        position = starts[tensor.storage] + tensor.offset * DTYPE_BYTES[tensor.dtype]
        entries[name] = Entry(stored=tensor, position=position)
    return entries


def _data_start(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Find the file offset of the data of a record, after its local header with padding of its own."""
    file.seek(record.header_offset)
    head = file.read(30)
    if head[:4] != b"PK\x03\x04" or len(head) != 30:
        raise zipfile.BadZipFile(f"no record at byte {record.header_offset}")
    return (
        record.header_offset
        + 30
        + int.from_bytes(head[26:28], "little")
        + int.from_bytes(head[28:30], "little")
    )


def unwrapped(value: object) -> object:
    """Unwrap the state dict from the wrappers of training code, up to a limit because a dict may contain itself."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, Mapping):
            break
        value = next((value[key] for key in WRAPPERS if isinstance(value.get(key), Mapping)), value)
    return value


def _kind(value: object) -> str:
    """Describe the type of an index value, for messages."""
    if isinstance(value, Mapping):
        return "a dict" if value else "an empty dict"
    return {StoredTensor: "a single tensor", type(None): "None"}.get(type(value), type(value).__name__)


class TorchSource:
    """A ``WeightSource`` for the tensors of a header, in one or several files."""

    def __init__(self, header: Header) -> None:
        self._tensors = header.tensors
        self._entries: dict[str, Entry] = {}
        self._files = OpenFiles(self._check)

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        return self._tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read the tensor onto ``device``. Raises ``RunError`` if its file changed or disappeared since planning."""
        info = self._tensors[name]
        entry = self._entry(name)
        flat = self._files.read(info.file, entry.position, entry.stored.span, info.dtype, name)
        return flat.as_strided(info.shape, entry.stored.stride).contiguous().to(device)

    def direct(self, name: str) -> bool:
        """Return whether a tensor is stored contiguously and in order, as nearly all are."""
        return self._entry(name).stored.contiguous

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read into ``out``, which has the stored shape and dtype. Raises as ``read`` does; thread-safe."""
        info, entry = self._tensors[name], self._entry(name)
        assert entry.stored.contiguous
        self._files.read_into(info.file, entry.position, out, name, cached=cached)

    def _entry(self, name: str) -> Entry:
        self._files.open(self._tensors[name].file)
        return self._entries[name]

    def close(self) -> None:
        self._files.close()

    def _check(self, path: Path) -> None:
        """Compare a file that was just opened with its planned header. Raises ``RunError`` if it changed."""
        try:
            now = read_entries(path)
        except CheckpointError as exc:
            raise RunError(f"{path} changed since planning: {exc}") from None
        for name, info in self._tensors.items():
            if info.file != path:
                continue
            entry = now.get(name)
            if entry is None or (entry.stored.shape, entry.stored.dtype, entry.position) != (
                info.shape,
                info.dtype,
                info.offset,
            ):
                raise RunError(f"{path} changed since planning: tensor {name!r} differs")
            self._entries[name] = entry
