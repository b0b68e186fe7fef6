"""The arithmetic of the block formats, bit-identical to the reference package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.testing.profiles import examples
from lightx2v_gguf.blocks import decode, encode
from lightx2v_gguf.types import BLOCKS, WRITTEN

gguf = pytest.importorskip("gguf")
KINDS = sorted(BLOCKS)


def type_of(format: str):
    return gguf.GGMLQuantizationType[format.removeprefix("gguf-").upper()]


@pytest.mark.parametrize("format", KINDS)
def test_sizes_are_those_of_the_reference(format):
    assert BLOCKS[format] == gguf.GGML_QUANT_SIZES[type_of(format)]


@pytest.mark.parametrize("format", KINDS)
@settings(max_examples=examples(25), deadline=None)
@given(count=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_bytes_decode_to_the_numbers_of_the_reference(format, count, seed):
    """Including infinities and NaNs."""
    packed = np.random.default_rng(seed).integers(0, 256, (count, BLOCKS[format][1]), dtype=np.uint8)
    wanted = gguf.quants.dequantize(packed, type_of(format)).reshape(-1)
    got = decode(torch.from_numpy(packed), format)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), wanted)


@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_are_the_float32_numbers_cast(format, dtype, blocks):
    packed = torch.from_numpy(blocks(format.removeprefix("gguf-"), 9, 3))
    got = decode(packed, format, dtype)
    assert torch.equal(got, decode(packed, format).to(dtype))


def test_large_weights_are_decoded_in_pieces_of_the_same_numbers(blocks, monkeypatch):
    packed = torch.from_numpy(blocks("q6_k", 50, 0))
    whole = decode(packed, "gguf-q6_k")
    monkeypatch.setattr("lightx2v_gguf.blocks._PIECE", 256 * 7)
    assert torch.equal(decode(packed, "gguf-q6_k"), whole)


@pytest.mark.parametrize("format", WRITTEN)
@settings(max_examples=examples(25), deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 4)
)
def test_packing_gives_the_bytes_of_the_reference(format, rows, columns, seed, spread):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 32 * columns)) * np.exp(spread * rng.standard_normal((rows, 1)))
    values = values.clip(-6e4, 6e4).astype(np.float32)
    values[rng.integers(rows)] = 0
    values[rng.integers(rows), :32] = 0.25
    wanted = gguf.quants.quantize(values, type_of(format)).reshape(-1, BLOCKS[format][1])
    np.testing.assert_array_equal(encode(torch.from_numpy(values), format).numpy(), wanted)


@pytest.mark.parametrize("format", WRITTEN)
def test_what_cannot_be_packed_is_refused(format):
    with pytest.raises(ValueError, match="does not divide into blocks of"):
        encode(torch.zeros(3, 20), format)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            encode(torch.full((1, 32), wrong), format)
    with pytest.raises(ValueError, match="too large for scales"):
        encode(torch.tensor([[1e30, -1e30]]).repeat(1, 16), format)


def test_k_types_are_not_packed():
    with pytest.raises(ValueError, match="cannot write weights as gguf-q4_k"):
        encode(torch.zeros(1, 256), "gguf-q4_k")
