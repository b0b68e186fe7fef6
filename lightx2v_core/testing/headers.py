"""Checkpoint files with real headers and no data: sparse files of full size, for tests of planning.

Only the standard library is used; the pickled index of a ``.pth`` file is written without torch.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}


def write_sparse_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[int, ...]],
    dtype: str = "F32",
    *,
    dtypes: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file with a real header and a hole of the right size in place of the data.

    ``dtypes`` gives the dtypes of tensors that are not in ``dtype``, by safetensors names (``F8_E4M3``, ``I8``).
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        kind = (dtypes or {}).get(name, dtype)
        start, end = end, end + prod(shape) * SIZES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_sparse_shards(
    folder: Path, tensors: Mapping[str, tuple[int, ...]], count: int, dtype: str = "F32"
) -> None:
    """Write an index and ``count`` sparse shards with their official names."""
    names = list(tensors)
    weight_map = {}
    for number in range(count):
        part = names[number * len(names) // count : (number + 1) * len(names) // count]
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{count:05d}.safetensors"
        write_sparse_safetensors(folder / file, {name: tensors[name] for name in part}, dtype)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def write_sparse_pth(
    path: Path, tensors: Mapping[str, tuple[int, ...]], storage: str = "BFloat16Storage"
) -> None:
    """Write a torch.save archive without torch: a real index, with holes of the right size as storages."""
    unit = {"BFloat16Storage": 2, "FloatStorage": 4}[storage]
    stem = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(f"{stem}/data.pkl", _index(tensors, storage))
        archive.writestr(f"{stem}/version", b"3\n")
        for key, shape in enumerate(tensors.values()):
            _hole(archive, f"{stem}/data/{key}", prod(shape) * unit)


def _hole(archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Add a stored record of ``size`` bytes to a zip archive by seeking over its data."""
    info = zipfile.ZipInfo(name)
    info.file_size = info.compress_size = size
    info.CRC = 0
    archive._writecheck(info)  # type: ignore[attr-defined]
    file = archive.fp
    assert file is not None
    file.seek(archive.start_dir)
    info.header_offset = file.tell()
    file.write(info.FileHeader(zip64=size > 2**31))
    file.seek(size - 1, 1)
    file.write(b"\0")
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = file.tell()
    archive._didModify = True  # type: ignore[attr-defined]


def _index(tensors: Mapping[str, tuple[int, ...]], storage: str) -> bytes:
    """Build the pickle (protocol 2) that torch.save writes for a dict of contiguous tensors."""

    def text(value: str) -> bytes:
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data

    def whole(value: int) -> bytes:
        if value < 2**31:
            return b"J" + struct.pack("<i", value)
        data = value.to_bytes(8, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(whole(value) for value in values) + b"t"

    out = [b"\x80\x02", b"}", b"("]
    for key, (name, shape) in enumerate(tensors.items()):
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        out += [
            text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + text("storage") + f"ctorch\n{storage}\n".encode(),
            text(str(key)) + text("cpu") + whole(prod(shape)) + b"tQ",
            whole(0) + numbers(shape) + numbers(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"tR",
        ]
    return b"".join([*out, b"u", b"."])
