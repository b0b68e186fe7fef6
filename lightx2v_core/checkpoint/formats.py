"""Storage formats of weights, determined from the headers layer by layer: weight dtype, scales and their shapes.

A format describes the file; the quantizer chooses the kernel that multiplies with it. The formats:

=================== ================================================================================================
``fp8-channel``     float8_e4m3fn, a scale for each output channel: ``weight_scale`` [out, 1] or [out]
``fp8-tensor``      float8_e4m3fn, one scale: ``weight_scale`` [] or [1]
``fp8-tensor-static``  the same with a scale for the input too: ``input_scale`` []
``fp8-block128``    float8_e4m3fn, a scale for each 128 x 128 block: ``weight_scale`` [ceil(out/128), ceil(in/128)]
``fp8-plain``       float8_e4m3fn without any scale; biases, norms and embeddings may be in it too
``fp8-e5m2-...``    the same in float8_e5m2
``int8-channel``, ``int8-tensor``, ``int8-tensor-static``   int8, symmetric
``nvfp4``           uint8 [out, in/2], ``weight_scale`` e4m3 for 16 inputs, and scales of the whole tensor
``mxfp4``, ``mxfp6``, ``mxfp8``  groups of 32 inputs with ``weight_scale`` e8m0
``gguf-q8_0``, ...  values packed in blocks, named by the loader of the file (``TensorInfo.block``)
=================== ================================================================================================

Decoded, a weight of the fp8 and int8 formats is ``weight * weight_scale``.

Sources: the files written by LightX2V's converter and the rules by which ComfyUI reads its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from lightx2v_core.checkpoint import scales
from lightx2v_core.spec.tensors import Header, LayerFormat, TensorInfo

#: ComfyUI's names of the scales of a weight -> the official ones
COMFYUI_SUFFIXES: Mapping[str, str] = {"scale_weight": "weight_scale", "scale_input": "input_scale"}
#: a top-level tensor: the file contains scaled fp8; with two elements only the weights are quantized
SCALED_FP8_MARKER = "scaled_fp8"
#: a tensor next to a weight: UTF-8 bytes of a JSON object such as {"format": "float8_e4m3fn"}
LAYER_MARK = "comfy_quant"
#: key of the file metadata: a JSON object {"layers": {layer: object as in a layer's mark}}
METADATA = "_quantization_metadata"
#: format named by a mark -> formats that its layer may have
MARKED: Mapping[str, tuple[str, ...]] = {
    "float8_e4m3fn": ("fp8-tensor", "fp8-tensor-static", "fp8-channel"),
    "float8_e5m2": ("fp8-e5m2-tensor", "fp8-e5m2-tensor-static", "fp8-e5m2-channel"),
    "int8_tensorwise": ("int8-tensor", "int8-tensor-static", "int8-channel"),
    "int8": ("int8-tensor", "int8-tensor-static", "int8-channel"),
    "nvfp4": ("nvfp4",),
    "mxfp8": ("mxfp8",),
}
#: keys that a mark may have; any other could change the meaning of the numbers
_MARK_KEYS = frozenset({"format", "full_precision_matrix_mult"})
_MAX_MARK = 1 << 12
#: dotted parts of a name that a network's prefix may have
_PREFIX_PARTS = 8
#: characters of a mark that a message shows
_SHOWN = 200

#: dtype of quantized values -> prefix of the names of their formats
_FAMILIES: Mapping[str, str] = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8-e5m2", "int8": "int8"}
#: suffixes that belong to a quantized weight
_BESIDE = frozenset(
    {"weight_scale", "input_scale", "weight_scale_2", "weight_global_scale", "input_global_scale",
     "input_absmax", "alpha", "bias", LAYER_MARK}
)  # fmt: skip
#: words in the suffixes of quantization tensors, SCALED_FP8_MARKER among them
_TELLING = ("scale", "zero", "absmax", "quant", "workspace")

#: the tensors of one layer by official suffix
LayerTensors = Mapping[str, TensorInfo]


def official_suffix(name: str, there: Mapping[str, object] | None = None) -> str:
    """Replace ComfyUI's name of a scale in a tensor's name by the official one, unless ``there`` contains the new name
    too."""
    layer, dot, suffix = name.rpartition(".")
    if suffix not in COMFYUI_SUFFIXES:
        return name
    new = f"{layer}{dot}{COMFYUI_SUFFIXES[suffix]}"
    return name if there is not None and new in there else new


def layer_formats(header: Header) -> dict[str, LayerFormat]:
    """Determine the formats of layers, and of single tensors, that are not in a plain float dtype, by name.

    Layers whose format cannot be determined are missing here; ``format_problems`` reports them.
    """
    return _examined(header)[0]


def format_problems(header: Header) -> list[str]:
    """Return the problems of quantized weights as sentences that name file and tensor: a weight without its scale, a
    scale without its weight or of an impossible shape, marks that contradict the tensors."""
    return _examined(header)[1]


def main_format(header: Header) -> str:
    """Return the format of most bytes of quantized weights; ``""`` if there are none."""
    sizes: dict[str, int] = {}
    for layer in layer_formats(header).values():
        sizes[layer.format] = sizes.get(layer.format, 0) + layer.weight.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ""


def accounted(header: Header) -> frozenset[str]:
    """Return the names of the scales and marks of quantized weights, which no network has parameters for."""
    names = {name for name in header if name.rpartition(".")[2] == SCALED_FP8_MARKER}
    for layer in layer_formats(header).values():
        if "weight" in layer.tensors:
            names |= {
                f"{layer.name}.{suffix}" for suffix in layer.tensors if suffix not in ("weight", "bias")
            }
    return frozenset(names)


@frozen(kw_only=True)
class _Mark:
    """A mark of one layer, and its place in the file."""

    format: str
    weight_only: bool
    where: str


#: the format of a weight, its dequantized shape, and the problem with it
Stored = tuple[str, tuple[int, ...], str]


def _stored_blocks(_name: str, group: LayerTensors) -> Stored:
    return group["weight"].dtype, group["weight"].shape, ""


def _stored_packed(_name: str, group: LayerTensors) -> Stored:
    return scales.packed(group["weight"], group)


def _stored_unscaled(name: str, group: LayerTensors) -> Stored:
    weight = group["weight"]
    problem = f"{_at(weight)} is int8 but has no {name}.weight_scale" if weight.dtype == "int8" else ""
    return f"{_FAMILIES[weight.dtype]}-plain", weight.shape, problem


def _stored_scaled(_name: str, group: LayerTensors) -> Stored:
    weight = group["weight"]
    granularity, problem = scales.granularity(weight, group["weight_scale"])
    static = "-static" if "input_scale" in group and granularity == "tensor" else ""
    return f"{_FAMILIES[weight.dtype]}-{granularity}{static}", weight.shape, problem


def _is_packed(group: LayerTensors) -> bool:
    scale = group.get("weight_scale")
    return group["weight"].dtype == "uint8" or (
        scale is not None and scale.dtype in (*scales.MX_DTYPES, "uint8")
    )


#: (condition, reader of the format); the first rule whose condition holds for a layer reads its format
_RULES: Sequence[tuple[Callable[[LayerTensors], bool], Callable[[str, LayerTensors], Stored]]] = (
    (lambda group: group["weight"].block is not None, _stored_blocks),
    (_is_packed, _stored_packed),
    (lambda group: "weight_scale" not in group, _stored_unscaled),
    (lambda group: True, _stored_scaled),
)


def _examined(header: Header) -> tuple[dict[str, LayerFormat], list[str]]:
    return header.once("formats", lambda: _read_formats(header))


def _read_formats(header: Header) -> tuple[dict[str, LayerFormat], list[str]]:
    problems: list[str] = []
    groups = _groups(header, problems)
    layers: dict[str, LayerFormat] = {}
    for name, group in groups.items():
        layer, problem = _layer(name, group)
        problems += [problem] if problem else []
        if layer is not None:
            layers[name] = layer
        layers |= _single_tensors(name, group, layer, problems)
    marker = next(
        (info for name, info in header.tensors.items() if name.rpartition(".")[2] == SCALED_FP8_MARKER), None
    )
    if marker is not None or any("weight_scale" in layer.tensors for layer in layers.values()):
        problems += [
            f"{_at(layer.weight)} is {layer.weight.dtype} but has no weight_scale, unlike other weights of the file"
            for layer in layers.values()
            if "weight" in layer.tensors and layer.format.endswith("-plain") and len(layer.shape) == 2
        ]
    if marker is not None and marker.elements == 2:
        layers = {name: evolve(layer, weight_only=True) for name, layer in layers.items()}
    return layers | _marked(layers, header, groups, problems), problems


def _groups(header: Header, problems: list[str]) -> dict[str, LayerTensors]:
    """Group the tensors by layer and official suffix."""
    groups: dict[str, dict[str, TensorInfo]] = {}
    for name, info in header.tensors.items():
        layer, _, suffix = name.rpartition(".")
        group, suffix = groups.setdefault(layer, {}), COMFYUI_SUFFIXES.get(suffix, suffix)
        if suffix in group:
            problems.append(
                f"{_at(info)} and {group[suffix].name} are two names of the same tensor; remove one of them"
            )
        else:
            group[suffix] = info
    return dict(groups)


def _layer(name: str, group: LayerTensors) -> tuple[LayerFormat | None, str]:
    """Read the format of one layer. Returns ``None`` for plain floats, and ``None`` with the problem for a layer whose
    tensors do not fit together."""
    weight, scale = group.get("weight"), group.get("weight_scale")
    if weight is None:
        why = "" if scale is None else f"{_at(scale)} is a scale, but its weight {name}.weight is missing"
        return None, why
    if weight.dtype not in (*_FAMILIES, "uint8") and weight.block is None:
        if scale is None:
            return None, ""
        return None, f"{_at(scale)} is a scale, but {weight.name} is {weight.dtype}, which needs none"
    for suffix in group:
        if suffix != "weight" and suffix not in _BESIDE and _is_telling(suffix):
            return (
                None,
                f"{_at(group[suffix])}: unknown tensor next to a {weight.dtype} weight; is this file from another "
                "quantizer?",
            )
    format, shape, problem = next(read for applies, read in _RULES if applies(group))(name, group)
    if problem:
        return None, problem
    tensors = {suffix: info for suffix, info in group.items() if suffix == "weight" or suffix in _BESIDE}
    return LayerFormat(name=name, format=format, tensors=tensors, shape=shape), ""


def _single_tensors(
    name: str, group: LayerTensors, layer: LayerFormat | None, problems: list[str]
) -> dict[str, LayerFormat]:
    """Return the quantized tensors of a group that are not the weight of a layer, by their full names."""
    singles: dict[str, LayerFormat] = {}
    for suffix, info in group.items():
        if info.block is not None and suffix != "weight":
            format = info.dtype
        elif _belongs(suffix, layer) or info.dtype not in _FAMILIES:
            continue
        elif info.dtype == "int8":
            problems.append(f"{_at(info)} is int8 but has no scale, so its values cannot be restored")
            continue
        else:
            format = f"{_FAMILIES[info.dtype]}-plain"
        full = f"{name}.{suffix}" if name else suffix
        singles[full] = LayerFormat(name=full, format=format, tensors={"": info}, shape=info.shape)
    return singles


def _belongs(suffix: str, layer: LayerFormat | None) -> bool:
    """Return whether a tensor is a weight, or one of the tensors next to a weight."""
    if suffix == "bias":
        return layer is not None
    return suffix == "weight" or suffix in _BESIDE or _is_telling(suffix)


def _is_telling(suffix: str) -> bool:
    return any(word in suffix for word in _TELLING)


def _marked(
    layers: Mapping[str, LayerFormat],
    header: Header,
    groups: Mapping[str, LayerTensors],
    problems: list[str],
) -> dict[str, LayerFormat]:
    """Check the layers against ComfyUI's marks, and return the marked layers."""
    marked: dict[str, LayerFormat] = {}
    for name, mark in _marks(header, groups, problems).items():
        layer = layers.get(name)
        if layer is None or layer.format not in MARKED[mark.format]:
            stored = layer.format if layer is not None else groups[name]["weight"].dtype
            problems.append(f"{mark.where} marks {name} as {mark.format}, but its tensors are {stored}")
        else:
            marked[name] = evolve(layer, weight_only=mark.weight_only)
    return marked


def _marks(header: Header, groups: Mapping[str, LayerTensors], problems: list[str]) -> dict[str, _Mark]:
    """Read the ComfyUI marks of the layers in the header. Marks of other layers are ignored: a component extracted
    from a whole checkpoint keeps the metadata of all components."""
    entries = [*_metadata_marks(header, problems), *_tensor_marks(groups)]
    layers = _meant([name for name, _, _ in entries], groups)
    marks: dict[str, _Mark] = {}
    for name, value, where in entries:
        if name not in layers:
            continue
        format = value.get("format") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(format, str) or format not in MARKED:
            shown = repr(value)[:_SHOWN]
            problems.append(
                f"{where}: unknown mark of {name}: {shown}; known formats are {', '.join(MARKED)}"
            )
        elif unknown := [key for key in value if key not in _MARK_KEYS and value[key] not in (None, False)]:
            problems.append(f"{where}: unknown key in the mark of {name}: {unknown[0][:_SHOWN]!r}")
        else:
            weight_only = bool(value.get("full_precision_matrix_mult"))
            marks[layers[name]] = _Mark(format=format, weight_only=weight_only, where=where)
    return marks


def _metadata_marks(header: Header, problems: list[str]) -> Iterator[tuple[str, object, str]]:
    """Read the marks in a file's metadata: name of the layer, content, and place in the file."""
    if METADATA not in header.metadata:
        return
    where, content = f"the metadata {METADATA!r}", _json(header.metadata[METADATA])
    layers = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(layers, dict):
        problems.append(f"{where} is not a JSON object with 'layers'")
        return
    for name, value in layers.items():
        yield name, value, where


def _tensor_marks(groups: Mapping[str, LayerTensors]) -> Iterator[tuple[str, object, str]]:
    """Read the marks next to weights, in the form of ``_metadata_marks``."""
    for name, group in groups.items():
        if (info := group.get(LAYER_MARK)) is not None:
            yield name, _json(_bytes(info)), _at(info)


def _meant(names: Iterable[str], groups: Mapping[str, LayerTensors]) -> dict[str, str]:
    """Match the marks to layers: a mark may omit, or have kept, the prefix of the network. A mark that matches several
    layers is ignored."""
    weights = dict.fromkeys(layer for layer, group in groups.items() if "weight" in group)
    matches: dict[str, list[str]] = {name: [] for name in names}
    for layer in weights:
        for tail in _tails(layer):
            if tail in matches:
                matches[tail].append(layer)
    for name, layers in matches.items():
        layers += [tail for tail in _tails(name) if tail in weights]
    near = {name: layers[0] for name, layers in matches.items() if len(layers) == 1}
    return near | {name: name for name in matches if name in weights}


def _tails(name: str) -> Iterator[str]:
    """Yield a dotted name without its first part, its first two parts, and so on, up to the length of a prefix."""
    at = -1
    for _ in range(_PREFIX_PARTS):
        at = name.find(".", at + 1)
        if at < 0 or at + 1 == len(name):
            return
        yield name[at + 1 :]


def _bytes(info: TensorInfo) -> bytes:
    """Read the bytes of a mark, the only tensor whose content is needed to determine the format."""
    if info.dtype != "uint8" or info.offset is None or info.nbytes > _MAX_MARK:
        return b""
    try:
        with info.file.open("rb") as file:
            file.seek(info.offset)
            return file.read(info.nbytes)
    except OSError:
        return b""


def _json(text: str | bytes) -> object:
    try:
        content: object = json.loads(text)
        return content
    except (ValueError, RecursionError):
        return None


def _at(info: TensorInfo) -> str:
    return f"{info.file.name}: {info.name}"
