"""The output of a conversion: tensors, names and files, planned before any weight is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lightx2v_convert.options import ConvertOptions, Layout
from lightx2v_core.api import DTYPE_BYTES, ComponentSpec, Header, KeyMap, RequestError, TensorInfo
from lightx2v_core.weights import COMFYUI_SUFFIXES, SAFETENSORS_DTYPES, SCALED_FP8_MARKER, apply_key_map

#: official base name of files and of their index, which is also used for block files
STEM = "diffusion_pytorch_model"
#: number of a block; unanchored, so that a branch of blocks is stored with the block of the same number
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_NO_FILE = Path()
#: layout of encoders in diffusers folders
_ENCODERS = "transformers"
_COMFYUI = {new: old for old, new in COMFYUI_SUFFIXES.items()}


@frozen(kw_only=True)
class OutputTensor:
    """A tensor to write."""

    #: name in the file
    name: str
    #: official name that it is read by; None for a marker
    source: str | None
    shape: tuple[int, ...]
    #: stored dtype, as a torch name
    dtype: str
    #: rows of its source (first, end), end exclusive; None: all rows
    rows: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return (
            TensorInfo(name="", shape=self.shape, dtype=self.dtype, file=_NO_FILE).elements
            * DTYPE_BYTES[self.dtype]
        )


@frozen(kw_only=True)
class OutputFile:
    """A file to write."""

    name: str
    tensors: tuple[OutputTensor, ...]
    metadata: Mapping[str, str] = field(factory=dict)

    @property
    def nbytes(self) -> int:
        """Return the size of its tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def head(self) -> bytes:
        """Build the bytes before the first tensor."""
        header: dict[str, object] = {"__metadata__": dict(self.metadata)}
        end = 0
        for tensor in self.tensors:
            start, end = end, end + tensor.nbytes
            header[tensor.name] = {
                "dtype": SAFETENSORS_DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def output_tensors(
    tensors: Mapping[str, TensorInfo], part: ComponentSpec, options: ConvertOptions
) -> list[OutputTensor]:
    """Plan the tensors of the result, with the names of its layout.

    ``tensors`` have official names and are described as read after quantization. Raises ``RequestError`` if the layout
    cannot represent them.
    """
    scaled = any(name.endswith(".weight_scale") for name in tensors)
    outputs = [
        OutputTensor(name=name, source=name, shape=info.shape, dtype=_dtype(info, name, options))
        for name, info in sorted(tensors.items(), key=lambda pair: _natural(pair[0]))
    ]
    for tensor in outputs:
        if tensor.dtype not in SAFETENSORS_DTYPES:
            raise RequestError(
                f"{tensor.name} is stored as {tensor.dtype}, which safetensors does not support; use --quantize none"
            )
    if options.layout != "official":
        key_map = _key_map(part, options.layout)
        if key_map is not None:
            outputs = _in_layout(outputs, key_map)
            _check_reads_back(key_map, outputs, tensors)
    if options.layout == "comfyui":
        outputs = [_in_comfyui(tensor) for tensor in outputs]
        if scaled:
            outputs.append(
                OutputTensor(name=SCALED_FP8_MARKER, source=None, shape=(2,), dtype="float8_e4m3fn")
            )
    return outputs


def config_of(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], part: ComponentSpec, layout: Layout
) -> Mapping[str, Any] | None:
    """Build the ``config.json`` of a layout; ``None`` if it has none of its own."""
    key_map = _key_map(part, layout) if layout not in ("official", "comfyui") else None
    if key_map is None or key_map.config is None:
        return None
    return key_map.config(config, {name: info.shape for name, info in tensors.items()})


def stem_of(part: ComponentSpec, layout: Layout) -> str:
    """Return the base name of files in a folder, as expected by libraries."""
    key_map = _key_map(part, layout) if layout not in ("official", "comfyui") else None
    return "model" if key_map is not None and key_map.name == _ENCODERS else STEM


def files(
    tensors: Sequence[OutputTensor], options: ConvertOptions, name: str | None = None, stem: str = STEM
) -> list[OutputFile]:
    """Distribute tensors to files; ``name`` is set for a single file outside a folder."""
    if options.split == "single":
        return [OutputFile(name=name or f"{stem}.safetensors", tensors=tuple(tensors))]
    if options.split == "blocks":
        groups: dict[str, list[OutputTensor]] = {}
        for tensor in tensors:
            block = _BLOCK.search(tensor.name)
            groups.setdefault(f"block_{block[1]}" if block else "non_block", []).append(tensor)
        return [
            OutputFile(name=f"{stem}.safetensors", tensors=tuple(group)) for stem, group in groups.items()
        ]
    shards: list[list[OutputTensor]] = [[]]
    for tensor in tensors:
        size = sum(other.nbytes for other in shards[-1])
        full = (
            len(shards[-1]) >= options.shard_tensors
            if options.shard_tensors
            else size + tensor.nbytes > options.shard_bytes
        )
        if shards[-1] and full:
            shards.append([])
        shards[-1].append(tensor)
    return [
        OutputFile(name=f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors", tensors=tuple(shard))
        for number, shard in enumerate(shards, 1)
    ]


def index_of(files: Sequence[OutputFile], sizes: Mapping[str, int]) -> bytes:
    """Build the index of several files: the file of every tensor, and their total size on disk."""
    weight_map = {tensor.name: file.name for file in files for tensor in file.tensors}
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2).encode()


def _dtype(info: TensorInfo, name: str, options: ConvertOptions) -> str:
    if name.endswith((".weight_scale", ".input_scale")) and info.dtype in ("bfloat16", "float16", "float64"):
        return "float32"
    if options.full and info.dtype in ("float64", "float32", "float16", "bfloat16"):
        return "float8_e4m3fn"
    if info.dtype not in ("float64", "float32", "float16", "bfloat16") or name.endswith(
        ("_scale", "_scale_2")
    ):
        return info.dtype
    return options.dtype or info.dtype


def _in_comfyui(tensor: OutputTensor) -> OutputTensor:
    layer, dot, suffix = tensor.name.rpartition(".")
    shape = () if suffix in _COMFYUI and tensor.shape == (1,) else tensor.shape
    if suffix == "weight_scale" and shape != ():
        raise RequestError(
            f"ComfyUI's layout has one scale per tensor, but {tensor.name} is {list(shape)}: use --quantize fp8, which "
            "produces such scales"
        )
    return OutputTensor(
        name=f"{layer}{dot}{_COMFYUI.get(suffix, suffix)}",
        source=tensor.source,
        shape=shape,
        dtype=tensor.dtype,
        rows=tensor.rows,
    )


def _key_map(part: ComponentSpec, layout: Layout) -> KeyMap | None:
    """Return the key map for writing a layout; ``None`` for official names.

    Encoders use the names of transformers in diffusers folders and ComfyUI files; transformers use official names in
    ComfyUI files.
    """
    names = (
        (_ENCODERS,) if layout == "comfyui" else (layout, *((_ENCODERS,) if layout == "diffusers" else ()))
    )
    written = {layout.name: layout for layout in part.layouts if layout.reverse}
    key_map = next((written[name] for name in names if name in written), None)
    if key_map is None and layout != "comfyui":
        raise RequestError(
            f"unsupported layout {layout} for the {part.summary}; supported layouts: "
            f"{', '.join(['official', 'comfyui', *written])}"
        )
    return key_map


def _in_layout(tensors: Sequence[OutputTensor], key_map: KeyMap) -> list[OutputTensor]:
    """Convert tensors to a layout: rename, split, squeeze or omit them as it requires."""
    named = []
    for tensor in tensors:
        if any(re.search(pattern, tensor.name) for pattern in key_map.omits):
            continue
        name = written(key_map, tensor.name)
        for number, part in enumerate(key_map.joins if "#" in name else ("",)):
            own, shape, rows = name.replace("#", part), tensor.shape, None
            if part and prod(shape) > 1:
                each, rest = divmod(shape[0], len(key_map.joins))
                if rest:
                    raise RequestError(
                        f"{tensor.name} {list(shape)} cannot be split into {', '.join(key_map.joins)}, as the layout "
                        f"{key_map.name} requires"
                    )
                rows, shape = (number * each, (number + 1) * each), (each, *shape[1:])
            if any(re.search(pattern, own) for pattern in key_map.squeezes):
                shape = tuple(side for side in shape if side != 1)
            named.append(
                OutputTensor(name=own, source=tensor.source, shape=shape, dtype=tensor.dtype, rows=rows)
            )
    return named


def written(key_map: KeyMap, name: str) -> str:
    """Translate an official name to its name in a layout."""
    for pattern, text in key_map.reverse:
        name = re.sub(pattern, text, name)
    return name


def _check_reads_back(
    key_map: KeyMap, named: Sequence[OutputTensor], tensors: Mapping[str, TensorInfo]
) -> None:
    infos = {t.name: TensorInfo(name=t.name, shape=t.shape, dtype=t.dtype, file=_NO_FILE) for t in named}
    back = apply_key_map(key_map, Header(tensors=infos))
    wanted = {name for name in tensors if not any(re.search(pattern, name) for pattern in key_map.omits)}
    if len(infos) != len(named) or back is None or set(back.header) != wanted:
        lost = sorted(wanted - set(back.header if back is not None else ()))[:3]
        raise RequestError(
            f"the layout {key_map.name} cannot represent {', '.join(lost) or 'some tensors'}; use the official layout "
            "for this network, or omit tensors with --drop"
        )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key for names, with numbers by value; a weight sorts before its scale."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]
