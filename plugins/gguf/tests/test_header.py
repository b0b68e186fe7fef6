"""Headers of GGUF files: those of the reference package, and broken ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightx2v_core.api import CheckpointError, PositionedSource
from lightx2v_core.testing.profiles import examples
from lightx2v_gguf.header import read_header

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory, write, blocks):
    """A file with plain, packed and flattened tensors, and metadata of all types."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"

    def metadata(writer):
        writer.add_uint32("general.quantization_version", 2)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b" * 300, "é"])
        writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
        writer.add_array("nested", [[1, 2], [3]])
        writer.add_bool("flag", True)
        writer.add_float64("number", 0.25)

    tensors = {
        "plain.weight": torch.randn(3, 5),
        "half.weight": torch.randn(7).half(),
        "brain.weight": torch.randn(4, 6).bfloat16(),
        "packed.weight": torch.randn(4, 64),
        "flat.weight": blocks("q6_k", 3, 0),
        "patch_embedding.weight": torch.randn(4, 3, 1, 2, 2),
    }
    write(path, tensors, {"packed.weight": "q5_1", "flat.weight": "q6_k:12x64"}, metadata=metadata)
    return path, tensors


def test_everything_that_was_written_is_there(file, decoded):
    path, tensors = file
    header = read_header(path)
    assert {name: info.shape for name, info in header.tensors.items()} == {
        "plain.weight": (3, 5), "half.weight": (7,), "brain.weight": (4, 6), "packed.weight": (4, 64),
        "flat.weight": (12, 64), "patch_embedding.weight": (4, 3, 1, 2, 2),
    }  # fmt: skip
    assert {name: info.dtype for name, info in header.tensors.items()} == {
        "plain.weight": "float32", "half.weight": "float16", "brain.weight": "bfloat16",
        "packed.weight": "gguf-q5_1", "flat.weight": "gguf-q6_k", "patch_embedding.weight": "float32",
    }  # fmt: skip
    assert header.tensors["packed.weight"].nbytes == 8 * 24
    assert header.metadata["general.architecture"] == "wan"
    assert (header.metadata["flag"], header.metadata["number"]) == ("True", "0.25")
    source = PositionedSource(header, read_header)
    for name in ("plain.weight", "half.weight", "brain.weight", "patch_embedding.weight"):
        assert torch.equal(source.read(name), tensors[name]), name
    assert np.array_equal(source.read("flat.weight").numpy(), tensors["flat.weight"])
    assert source.read("packed.weight").shape == (8, 24)
    source.close()


def cut(path, data, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data)
    return broken


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_one_line_or_a_header_that_holds(file, tmp_path, data):
    """A truncated file, or one with changed header bytes: an error that names the file, or tensors inside the file."""
    whole = file[0].read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, 1400))
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else damaged
    path = cut(file[0], bytes(damaged), tmp_path)
    header, said = None, ""
    try:
        header = read_header(path)
    except CheckpointError as exc:
        said = str(exc)
    if header is None:
        assert str(path) in said
        assert "\n" not in said
        return
    for info in header.tensors.values():
        assert info.offset + info.nbytes <= len(damaged)
        assert info.nbytes >= 0


def head(version=3, tensors=0, entries=b"", count=0, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, count) + entries


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tensor(name="a.weight", shape=(32,), kind=8, offset=0, axes=None):
    axes = len(shape) if axes is None else axes
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", axes, *shape, kind, offset)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not start with GGUF"),
        (head(magic=b"GGML"), "does not start with GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (head(version=1), "is a version 1 GGUF file; supported are versions 2 and 3"),
        (head(version=3 << 24), "is a big-endian GGUF file"),
        (head(tensors=1 << 60), "the number of tensors is 1152921504606846976, above the limit of 1048576"),
        (head(count=1 << 60), "the number of metadata entries is 1152921504606846976, above the limit"),
        (head(count=1, entries=text("key") + struct.pack("<I", 77)), "unknown type 77 of a metadata entry"),
        (head(count=1, entries=struct.pack("<Q", 1 << 62)), "the length of a metadata key is"),
        (head(count=1, entries=text("k") + struct.pack("<IQ", 8, 1 << 40)), "the length of a string is"),
        (head(count=1, entries=text("k") + struct.pack("<IIQ", 9, 4, 1 << 40)), "the length of an array is"),
        (
            head(count=1, entries=text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20),
            "too deeply nested array type 9",
        ),
        (head(count=2, entries=(text("k") + struct.pack("<II", 4, 1)) * 2), "duplicate metadata key 'k'"),
        (head(tensors=1) + tensor(axes=3), "ends where"),
        (head(tensors=1) + tensor(shape=(1,) * 9), "has 9 axes"),
        (head(tensors=1) + tensor(shape=(1 << 60,)), "a side of 'a.weight' is"),
        (head(tensors=1) + tensor(shape=(33,)), "does not divide into blocks of 32"),
        (head(tensors=1) + tensor(kind=23), "unsupported type IQ4_XS of 'a.weight'; supported are Q2_K, "),
        (head(tensors=1) + tensor(kind=99), "unsupported type number 99 of 'a.weight'"),
        (head(tensors=1) + tensor(offset=8), "offset 8 of 'a.weight' is not a multiple of 32"),
        (head(tensors=1) + tensor(offset=1 << 50), "of a file of"),
        (head(tensors=1) + tensor(), "of a file of"),
        (head(tensors=2) + tensor() * 2 + bytes(200), "duplicate tensor 'a.weight'"),
        (head(tensors=2) + tensor() + tensor("b") + bytes(200), "overlaps '"),
        (
            head(count=1, entries=text("general.alignment") + struct.pack("<II", 4, 48)),
            "alignment 48 is not a power of two",
        ),
        (
            head(count=1, entries=text("split.count") + struct.pack("<IH", 2, 3)),
            "one of 3 parts of a split file",
        ),
        (
            head(
                tensors=1,
                count=1,
                entries=text("comfy.gguf.orig_shape.a.weight") + struct.pack("<IIQ2I", 9, 4, 2, 4, 9),
            )
            + tensor()
            + bytes(200),
            "has shape [32], but the metadata record (4, 9)",
        ),
    ],
)
def test_what_is_wrong_is_said(data, words, tmp_path):
    path = cut(None, data, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_five_axes_are_read_as_they_are(tmp_path):
    """Some tools write more axes than ggml supports."""
    data = head(tensors=1) + tensor(shape=(2, 2, 1, 4, 8), kind=0)
    data += bytes(-len(data) % 32) + bytes(4 * 128)
    header = read_header(cut(None, data, tmp_path))
    assert header.tensors["a.weight"].shape == (8, 4, 1, 2, 2)
