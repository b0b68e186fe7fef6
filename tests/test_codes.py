"""Weights to codes and back, by properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from lightx2v_core.quant.arithmetic import (  # noqa: E402
    LARGEST,
    WEIGHT_FORMATS,
    dequantize_weight,
    quantize_tokens,
    quantize_weight,
)
from lightx2v_core.testing.profiles import examples  # noqa: E402

#: the most that a code is away from its value, relative to the largest value that shares its scale
STEP = {"int8": 0.5 / 127, "fp8": 32 / 448 / 2, "fp8-e5m2": 1 / 8}
MADE = sorted(WEIGHT_FORMATS)
_SCALED = [format for format in MADE if not format.endswith("-plain")]


def weights(rows: int, columns: int, seed: int, size: float) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size


@settings(deadline=None, max_examples=examples(60))
@given(
    format=st.sampled_from(_SCALED),
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    seed=st.integers(0, 99),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_decoding_gives_the_weight_back_but_for_half_a_step(format, rows, columns, seed, size):
    weight = weights(rows, columns, seed, size)
    stored = quantize_weight(weight, format)
    error = (dequantize_weight(stored, format) - weight).abs()
    assert (
        error.max()
        <= weight.abs().max() * STEP["fp8-e5m2" if "e5m2" in format else format.split("-")[0]] * 1.001
    )
    assert stored["weight_scale"].dtype == torch.float32
    again = quantize_weight(dequantize_weight(stored, format), format)
    assert torch.equal(again["weight"].float(), stored["weight"].float()), "codes survive a second round"


@pytest.mark.parametrize("format", _SCALED)
def test_a_weight_of_zeros_stays_one(format):
    stored = quantize_weight(torch.zeros(3, 5), format)
    assert (stored["weight_scale"] > 0).all()
    assert torch.equal(dequantize_weight(stored, format), torch.zeros(3, 5))


@pytest.mark.parametrize("format", MADE)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(format, value):
    weight = torch.ones(3, 5)
    weight[1, 2] = value
    with pytest.raises(ValueError, match="not finite"):
        quantize_weight(weight, format)


def test_only_known_formats_are_made():
    with pytest.raises(ValueError, match="nvfp4"):
        quantize_weight(torch.ones(2, 2), "nvfp4")


def test_a_half_precision_weight_is_divided_in_float32():
    weight = weights(8, 64, 0, 1.0).bfloat16()
    for format in _SCALED:
        for name, tensor in quantize_weight(weight, format).items():
            assert torch.equal(tensor.float(), quantize_weight(weight.float(), format)[name].float())


@settings(deadline=None, max_examples=examples(40))
@given(rows=st.integers(1, 40), columns=st.integers(1, 80), seed=st.integers(0, 99))
def test_activations_use_all_codes_of_their_row(rows, columns, seed):
    x = weights(rows, columns, seed, 3.0)
    for dtype, largest in LARGEST.items():
        codes, scale = quantize_tokens(x, dtype)
        assert (codes.float().abs().amax(dim=1) == largest).all()
        assert scale.shape == (rows, 1)
        torch.testing.assert_close(codes.float() * scale, x, atol=float(scale.max()) * 17, rtol=0.13)


def test_zeros_of_activations_give_zeros():
    for dtype in LARGEST:
        codes, scale = quantize_tokens(torch.zeros(2, 4), dtype)
        assert torch.isfinite(scale).all()
        assert not codes.float().any()
