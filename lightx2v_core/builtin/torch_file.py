"""torch.save files (.pth): a zip archive of a pickled index and raw storages.

The index is *read*, never unpickled: a small interpreter (``pickle_index``) follows its opcodes, knows the few
names that tensors are made of and refuses every other one. Tensors are loaded by
``torch.load(mmap=True, weights_only=True)``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightx2v_core.api import DTYPE_BYTES, CheckpointError, Header, RunError, TensorInfo
from lightx2v_core.builtin.pickle_index import Refused, StoredTensor, read_index

if TYPE_CHECKING:
    from torch import Tensor

#: keys under which training code wraps a state dict
WRAPPERS = ("state_dict", "model_state")
_MAX_INDEX = 1 << 28


def read_header(path: Path) -> Header:
    """The tensors of one file. ``CheckpointError`` when it is damaged or holds anything but tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: entry for entry in archive.infolist()}
            index = next((name for name in records if name.endswith("/data.pkl")), None)
            if index is None or records[index].file_size > _MAX_INDEX:
                raise CheckpointError(f"{path} is not a torch.save file: the archive has no data.pkl")
            value = read_index(archive.read(index))
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is not a torch.save file, or is truncated (files of torch before 1.6 must be saved again)"
        ) from None
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror or exc}") from None
    except Refused as exc:
        raise CheckpointError(f"{path} was refused, and nothing in it was executed: {exc}") from None
    state = unwrapped(value)
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path} holds no tensors by name, but {type(state).__name__}")
    folder = index.removesuffix("data.pkl")
    return Header(tensors={name: _info(path, name, item, folder, records) for name, item in state.items()})


def unwrapped(value: Any) -> Any:
    """The state dict inside the wrappers that training code puts around it."""
    while isinstance(value, Mapping):
        inner = next((value[key] for key in WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            return value
        value = inner
    return value


def _info(
    path: Path, name: Any, item: Any, folder: str, records: Mapping[str, zipfile.ZipInfo]
) -> TensorInfo:
    if not isinstance(name, str) or not isinstance(item, StoredTensor):
        raise CheckpointError(
            f"{path} was refused, and nothing in it was executed: {name!r} is no tensor but {type(item).__name__}"
        )
    record = records.get(f"{folder}data/{item.storage}")
    if record is None or record.file_size < item.storage_elements * DTYPE_BYTES[item.dtype]:
        raise CheckpointError(f"{path} is damaged: the storage of {name!r} is missing or too short")
    return TensorInfo(name=name, shape=item.shape, dtype=item.dtype, file=path)


class TorchSource:
    """``WeightSource`` over one torch.save file, memory-mapped on first use."""

    def __init__(self, header: Header) -> None:
        self._tensors = header.tensors
        self._loaded: dict[Path, Mapping[str, Tensor]] = {}

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        return self._tensors[name]

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """The tensor on ``device``; on the CPU it stays a view of the mapped file until it is written to."""
        import pickle

        import torch

        info = self._tensors[name]
        if info.file not in self._loaded:
            try:
                state = unwrapped(torch.load(info.file, map_location="cpu", mmap=True, weights_only=True))
            except (OSError, RuntimeError, pickle.UnpicklingError) as exc:
                raise RunError(f"{info.file} cannot be read: {exc}") from None
            self._loaded[info.file] = state
        tensor = self._loaded[info.file].get(name)
        if tensor is None or tuple(tensor.shape) != info.shape:
            raise RunError(f"{info.file} changed since it was planned: {name!r} is not what it was")
        return tensor.to(device)

    def close(self) -> None:
        self._loaded.clear()
