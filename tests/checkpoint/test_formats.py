"""The formats of quantized weights, read off headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightx2v_core.builtin.safetensors_file import read_header
from lightx2v_core.checkpoint.formats import accounted, format_problems, layer_formats, main_format
from lightx2v_core.checkpoint.layouts import OFFICIAL_LAYOUT, apply_key_map
from lightx2v_core.checkpoint.shards import merged
from lightx2v_core.spec.tensors import Header, TensorInfo

FILE = Path("wan.safetensors")
LAYER = "blocks.0.ffn.0"
#: values and bytes of a block
BLOCKS = {"acme-q6": (256, 210)}


def header_of(metadata=None, **tensors):
    """A header from ``name=(dtype, *shape)``; names of the layer are short, others have ``__`` for dots."""
    found = {}
    for short, (dtype, *shape) in tensors.items():
        name = short.replace("__", ".") if "__" in short or short == "scaled_fp8" else f"{LAYER}.{short}"
        found[name] = TensorInfo(
            name=name, shape=tuple(shape), dtype=dtype, file=FILE, block=BLOCKS.get(dtype)
        )
    return Header(tensors=found, metadata=metadata or {})


WEIGHT = ("float8_e4m3fn", 256, 384)
READ = {
    "fp8-channel": {"weight": WEIGHT, "weight_scale": ("float32", 256, 1)},
    "fp8-channel of one axis": {"weight": WEIGHT, "weight_scale": ("bfloat16", 256)},
    "fp8-tensor": {"weight": WEIGHT, "weight_scale": ("float32",)},
    "fp8-tensor of ComfyUI": {"weight": WEIGHT, "scale_weight": ("float32", 1), "scaled_fp8": ("float8_e4m3fn", 2)},
    "fp8-tensor-static": {"weight": WEIGHT, "weight_scale": ("float32",), "input_scale": ("float32",)},
    "fp8-tensor-static of ComfyUI": {"weight": WEIGHT, "scale_weight": ("float32",), "scale_input": ("float32",)},
    "fp8-block128": {"weight": WEIGHT, "weight_scale": ("float32", 2, 3)},
    "fp8-plain": {"weight": WEIGHT},
    "fp8-e5m2-tensor": {"weight": ("float8_e5m2", 256, 384), "scale_weight": ("float32",)},
    "int8-channel": {"weight": ("int8", 256, 384), "weight_scale": ("float32", 256, 1), "bias": ("float32", 256)},
    "int8-tensor": {"weight": ("int8", 256, 384), "weight_scale": ("float32",)},
    "nvfp4": {"weight": ("uint8", 256, 192), "weight_scale": ("float8_e4m3fn", 256, 24),
              "weight_global_scale": ("float32",)},
    "nvfp4 of ComfyUI": {"weight": ("uint8", 256, 192), "weight_scale": ("float8_e4m3fn", 256, 24),
                         "weight_scale_2": ("float32",)},
    "mxfp4": {"weight": ("uint8", 256, 2560), "weight_scale": ("float8_e8m0fnu", 256, 160)},
    "mxfp6": {"weight": ("uint8", 256, 3840), "weight_scale": ("float8_e8m0fnu", 256, 160)},
    "mxfp8": {"weight": ("uint8", 256, 5120), "weight_scale": ("float8_e8m0fnu", 256, 160)},
    "mxfp8 of ComfyUI": {"weight": ("float8_e4m3fn", 256, 5120), "weight_scale": ("uint8", 256, 160)},
    "acme-q6": {"weight": ("acme-q6", 256, 512)},
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_formats_are_read_off_dtypes_and_scales(case):
    header = header_of(**READ[case])
    assert format_problems(header) == []
    assert {name: layer.format for name, layer in layer_formats(header).items()} == {LAYER: case.split()[0]}
    assert main_format(header) == case.split()[0]
    expected = {LAYER + "." + name for name in READ[case] if name in ("weight", "bias")}
    assert set(header) - accounted(apply_key_map(OFFICIAL_LAYOUT, header).header) - {
        f"{LAYER}.scale_weight", f"{LAYER}.scale_input"
    } == expected  # fmt: skip


def test_the_shape_of_a_packed_weight_is_the_decoded_one():
    (layer,) = layer_formats(header_of(**READ["mxfp6"])).values()
    assert layer.shape == (256, 5120)
    (layer,) = layer_formats(header_of(**READ["acme-q6"])).values()
    assert (layer.shape, layer.nbytes) == ((256, 512), 256 * 2 * 210)


WRONG = {
    "int8 but has no blocks.0.ffn.0.weight_scale": {"weight": ("int8", 8, 8)},
    "is a scale, but its weight blocks.0.ffn.0.weight is missing": {"weight_scale": ("float32", 8, 1)},
    "is a scale, but blocks.0.ffn.0.weight is bfloat16": {
        "weight": ("bfloat16", 8, 8), "weight_scale": ("float32", 8, 1)},
    "is [7, 1]; a weight [8, 8]": {"weight": ("int8", 8, 8), "weight_scale": ("float32", 7, 1)},
    "is [1, 8]; a weight [8, 8]": {"weight": ("int8", 8, 8), "weight_scale": ("float32", 1, 8)},
    "is int64; the scale of a int8 weight": {"weight": ("int8", 8, 8), "weight_scale": ("int64", 8, 1)},
    "two names of the same tensor": {"weight": WEIGHT, "weight_scale": ("float32",), "scale_weight": ("float32",)},
    "unlike other weights of the file": {"weight": WEIGHT, "scaled_fp8": ("float8_e4m3fn", 2)},
    "blocks.1.ffn.0.weight is float8_e4m3fn but has no": {
        "weight": WEIGHT, "weight_scale": ("float32",), "blocks__1__ffn__0__weight": WEIGHT},
    "weight_zero_point: unknown tensor next to a int8 weight": {
        "weight": ("int8", 8, 8), "weight_scale": ("float32", 8, 1), "weight_zero_point": ("int8", 8, 1)},
    "modulation is int8 but has no scale": {"modulation": ("int8", 1, 6, 8)},
    "has no weight_scale": {"weight": ("uint8", 8, 8)},
    "too small to tell": {"weight": ("uint8", 128, 96), "weight_scale": ("float8_e8m0fnu", 128, 4)},
    "fits no known format": {"weight": ("uint8", 128, 96), "weight_scale": ("float8_e8m0fnu", 128, 400)},
    "has no weight_global_scale": {"weight": ("uint8", 256, 192), "weight_scale": ("float8_e4m3fn", 256, 24)},
    "which is empty": {"weight": ("int8", 0, 8), "weight_scale": ("float32", 0, 1)},
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_file_and_key(text):
    (problem,) = format_problems(header_of(**WRONG[text]))
    assert text in problem
    assert problem.startswith("wan.safetensors: blocks.")


def test_tensors_that_are_no_weights_may_be_in_fp8():
    header = header_of(
        weight=("bfloat16", 8, 8), bias=("float8_e4m3fn", 8), modulation=("float8_e5m2", 1, 6, 8)
    )
    assert format_problems(header) == []
    found = {name: layer.format for name, layer in layer_formats(header).items()}
    assert found == {f"{LAYER}.bias": "fp8-plain", f"{LAYER}.modulation": "fp8-e5m2-plain"}
    assert accounted(header) == frozenset()


METADATA = "_quantization_metadata"


def marked(value, **tensors):
    return header_of({METADATA: json.dumps({"layers": {LAYER: value}})}, **tensors)


def test_marks_of_comfyui_say_how_to_multiply():
    tensors = READ["fp8-tensor"]
    (layer,) = layer_formats(
        marked({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, **tensors)
    ).values()
    assert layer.weight_only
    (layer,) = layer_formats(marked({"format": "float8_e4m3fn"}, **tensors)).values()
    assert not layer.weight_only
    (layer,) = layer_formats(header_of(**READ["fp8-tensor of ComfyUI"])).values()
    assert layer.weight_only, "a marker of two elements is for weights only"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"format": "nvfp4"}, "as nvfp4, but its tensors are fp8-tensor"),
        ({"format": "awq"}, "known formats are"),
        ({"format": "float8_e4m3fn", "convrot": True}, f"unknown key in the mark of {LAYER}: 'convrot'"),
        (7, "known formats are"),
    ],
)
def test_marks_that_contradict_the_tensors_are_refused(value, text):
    (problem,) = format_problems(marked(value, **READ["fp8-tensor"]))
    assert text in problem
    assert LAYER in problem


def test_a_mark_on_a_plain_weight_is_a_contradiction():
    (problem,) = format_problems(marked({"format": "float8_e4m3fn"}, weight=("float32", 8, 8)))
    assert "its tensors are float32" in problem


def test_metadata_that_is_no_list_of_layers_is_refused():
    for text in ("7", "{", '{"layers": 1}', "[" * 100_000):
        (problem,) = format_problems(header_of({METADATA: text}, **READ["fp8-tensor"]))
        assert "is not a JSON object with 'layers'" in problem


def test_the_mark_beside_a_weight_is_read_from_the_file(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    text = json.dumps({"format": "nvfp4"}).encode()
    tensors = {
        f"{LAYER}.weight": torch.zeros(8, 8).to(torch.float8_e4m3fn),
        f"{LAYER}.weight_scale": torch.ones(()),
        f"{LAYER}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    (problem,) = format_problems(header)
    assert "comfy_quant marks blocks.0.ffn.0 as nvfp4" in problem
    tensors[f"{LAYER}.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    save_file(tensors, tmp_path / "b.safetensors")
    header = read_header(tmp_path / "b.safetensors")
    assert format_problems(header) == []
    assert f"{LAYER}.comfy_quant" in accounted(header)


@pytest.mark.parametrize(
    ("folder", "expected", "layers"),
    [
        ("int8_single", "int8-channel", 30),
        ("int8_blocks", "int8-channel", 30),
        ("fp8_single", "fp8-channel", 30),
        ("fp8_blocks", "fp8-channel", 30),
        ("comfy_fp8_scaled", "fp8-tensor", 30),
        ("ckpt", "", 0),
    ],
)
def test_files_of_the_reference_set(golden, folder, expected, layers):
    case = golden("quant_wan21_t2v")
    header = merged([read_header(path) for path in sorted((case / folder).glob("*.safetensors"))])
    plain = read_header(case / "ckpt" / "diffusion_pytorch_model.safetensors")
    assert format_problems(header) == []
    assert main_format(header) == expected
    found = layer_formats(header)
    assert {layer.format for layer in found.values()} == ({expected} if expected else set())
    assert len(found) == layers
    mapped = apply_key_map(OFFICIAL_LAYOUT, header)
    assert mapped is not None
    assert set(mapped.header) - accounted(mapped.header) == set(plain)


_SIDES = st.integers(1, 300)


@given(out=_SIDES, inputs=_SIDES, kind=st.sampled_from(["float8_e4m3fn", "int8"]), data=st.data())
def test_every_scale_is_either_understood_or_refused(out, inputs, kind, data):
    shape = data.draw(st.lists(st.integers(1, 300), max_size=3).map(tuple))
    header = header_of(weight=(kind, out, inputs), weight_scale=("float32", *shape))
    layers, problems = layer_formats(header), format_problems(header)
    assert bool(layers) != bool(problems)
    if layers:
        blocks = (-(-out // 128), -(-inputs // 128))
        by_format = {
            "tensor": [s for s in [shape] if set(s) <= {1}],
            "channel": [(out,), (out, 1)],
            "block128": [blocks],
        }
        assert shape in by_format[layers[LAYER].format.split("-")[1]]
